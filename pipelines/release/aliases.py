"""What every change of a release shares: who acts, where the state is, and the aliases that repeat it.

Redis decides what serves and is written first; the MLflow aliases follow. If they cannot, the release serves
all the same and `endcap promote --repair` brings them back in line.
"""

import getpass
import os
import time
from pathlib import Path
from typing import Any

from redis import Redis

from feature_repo.errors import EndcapError
from feature_repo.files import read_json
from feature_repo.places import BUNDLES
from serving.release import state as rollout
from serving.release.state import Act, Release, RolloutState


class ReleaseError(EndcapError):
    """A release that cannot be installed or gone back to."""


def follow(state: RolloutState, anew: bool = False, redis: Redis | None = None) -> None:
    """Let the aliases follow what serves already. Raises RegistryError; what serves is not touched.

    A store that no longer knows the release that serves was lost: that is an error, but where a person wants
    its versions registered `anew`. With `redis` whoever is overtaken by another change follows that one, too:
    of two at once the aliases repeat the later, whoever writes them last.
    """
    from pipelines.release.registry import Registry  # MLflow takes seconds: the pointer has moved before that

    registry = Registry()
    if not anew:
        registry.require(state)
    registry.repeat(state)
    while redis is not None and (now := rollout.present(redis)).version != state.version:
        registry.repeat(state := now)


def waiting_challenger() -> Release | None:
    """The registered challenger that `endcap rollout start` puts on trial."""
    from pipelines.release.registry import CHALLENGER, Registry

    version = Registry().holder(CHALLENGER)
    return version.release if version else None


def aliased() -> list[Release]:
    """What the aliases name; `endcap restore` goes back to it where Redis is empty."""
    from pipelines.release.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry

    registry = Registry()
    holders = [registry.holder(alias) for alias in (CHAMPION, CHALLENGER, PREVIOUS)]
    return [version.release for version in holders if version]


def ndcg_of(digest: str) -> float | None:
    """NDCG@12 of a release as it was evaluated: of its manifest, else of its version's tags; None if neither
    is left."""
    found = Release(digest, str(BUNDLES / digest)).manifest()
    if found:
        return float(found["metrics"]["models"]["endcap"]["ndcg_at_12"])
    from pipelines.release.registry import Registry, RegistryError

    try:
        version = Registry().find(digest)
    except RegistryError:
        return None
    return float(version.tags["test/ndcg_at_12"]) if version and "test/ndcg_at_12" in version.tags else None


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of a bundle's folder. Raises ReleaseError if there is none, DataError for another's."""
    path = folder / "manifest.json"
    if not path.exists():
        step = "build it with `dvc repro` or name one with --bundle"
        raise ReleaseError(f"bundle: {path} does not exist; {step}")
    return read_json(
        path, "name a bundle of Endcap's with --bundle, or build one with `endcap bundle`", "digest"
    )


def act_of(why: str) -> Act:
    """An act of the person at this terminal, now."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        who = f"uid {os.getuid()}"
    return Act(who=who, why=why, now_us=time.time_ns() // 1000)
