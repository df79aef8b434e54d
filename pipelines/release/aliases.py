"""What every change of a release shares: who acts, where the state is, and the aliases that repeat it.

Redis decides what serves and is written first; the MLflow aliases follow. If they cannot, the release serves
all the same and `endcap promote --repair` brings them back in line.
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from redis import Redis

from feature_repo.errors import EndcapError
from serving.release import state as rollout
from serving.release.state import Act, Release, RolloutState

if TYPE_CHECKING:
    from pipelines.release.registry import Registry

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"  # aliases of the registered model


class ReleaseError(EndcapError):
    """A release that cannot be installed or gone back to."""


def follow(state: RolloutState) -> None:
    """Let the aliases follow what serves already. Raises RegistryError; what serves is not touched."""
    mirror(state, open_registry())


def repair(redis: Redis) -> RolloutState:
    """Make the aliases repeat what Redis says serves."""
    state = present(redis)
    follow(state)
    return state


def mirror(state: RolloutState, registry: Registry) -> None:
    """Aliases as in `state`; a challenger that waits for its canary waits no longer."""
    registry.move_aliases({CHAMPION: state.champion, PREVIOUS: state.previous, CHALLENGER: state.challenger})


def waiting_challenger() -> Release | None:
    """The registered challenger that `endcap rollout start` puts on trial."""
    version = open_registry().holder(CHALLENGER)
    return version.release if version else None


def present(redis: Redis) -> RolloutState:
    """The control state. Raises ReleaseError before the first promotion."""
    state = rollout.read(redis)
    if state is None:
        raise ReleaseError("champion: nothing was ever promoted; run `endcap promote` first")
    return state


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of a bundle's folder. Raises ReleaseError if there is none."""
    path = folder / "manifest.json"
    if not path.exists():
        step = "build it with `dvc repro` or name one with --bundle"
        raise ReleaseError(f"bundle: {path} does not exist; {step}")
    return orjson.loads(path.read_bytes())


def act_of(why: str, numbers: Mapping[str, Any] | None = None) -> Act:
    """An act of the person at this terminal, now."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        who = f"uid {os.getuid()}"
    return Act(who=who, why=why, now_us=time.time_ns() // 1000, numbers=numbers or {})


def open_registry() -> Registry:
    """MLflow takes seconds to import: a rollback must have moved the pointer before that."""
    from pipelines.release.registry import Registry

    return Registry()
