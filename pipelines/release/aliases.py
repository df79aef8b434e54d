"""What every change of a release shares: who acts, where the state is, and the aliases that repeat it.

Redis decides what serves and is written first; the MLflow aliases follow. If they cannot, the release serves
all the same: the guard brings them in line later, `endcap promote --repair` at once.

endcap:followed   string   the version of the rollout that the aliases repeat
"""

import fcntl
import getpass
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from feature_repo.errors import EndcapError
from feature_repo.files import read_json
from feature_repo.params import shop
from feature_repo.places import BUNDLES
from serving.release import state as rollout
from serving.release.state import Act, Release, RolloutState

FOLLOWED = "endcap:followed"
LATE_S = 10.0


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
    if redis is not None:
        redis.set(FOLLOWED, state.version)


class Straggler:
    """Follows for whoever changed the rollout and was killed, or found MLflow's store away, before it had."""

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis, self._clock = redis, clock
        self._version, self._since, self._told = 0, 0.0, ""

    def look(self, state: RolloutState | None) -> str:
        """What was done, or could not be, each trouble once; empty mostly. Others have LATE_S to follow."""
        if state is None or state.challenger or self._followed(state):
            self._version = 0
            return ""
        if self._version != state.version:
            self._version, self._since, self._told = state.version, self._clock(), ""
        if self._clock() - self._since < LATE_S:
            return ""
        self._since = self._clock()
        try:
            with turn():
                if not self._followed(state):
                    follow(state, redis=self._redis)
        except EndcapError as error:
            before, self._told = self._told, f"what serves has changed, but: {error}"
            return self._told * (self._told != before)
        return f"the aliases repeat version {state.version}; whoever made it was kept from that"

    def _followed(self, state: RolloutState) -> bool:
        """A rollout of before there was this mark is taken as followed."""
        self._redis.set(FOLLOWED, state.version, nx=True)
        return int(self._redis.get(FOLLOWED) or 0) == state.version  # type: ignore[arg-type]


@contextmanager
def turn() -> Iterator[None]:
    """One at a time registers or follows late: of two the later would take the other's alias away."""
    lock = shop().run_dir() / "promote.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ReleaseError(
                "promote: another promotion is under way; nothing was changed. Next: "
                "`endcap rollout status`, then promote again"
            ) from None
        yield


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
