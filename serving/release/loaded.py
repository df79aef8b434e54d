"""The releases that a worker holds: champion, challenger and their item matrices, behind one pointer.

The pointer is immutable and swapped whole, so a request sees one state from start to end. A poller follows
`endcap:rollout`; a bundle is loaded in a thread and only then pointed to. A refused one changes nothing: what
served goes on, and a worker that has nothing yet takes the best release that it finds on disk, until the
named one is sound again. A refresh puts another snapshot in the place of an item matrix; a request that has
begun keeps its own.
"""

import asyncio
import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

from redis import Redis

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.errors import EndcapError, UnavailableError
from feature_repo.online import changes
from feature_repo.params import root
from serving import prometheus
from serving.errors import BundleError
from serving.params import replaying
from serving.pipeline import Bundle
from serving.release import bundle, state, workers
from serving.release.state import Release, RolloutState
from serving.release.workers import Report
from serving.types import VisitorRows

SWITCH_S = 0.0005  # how long a refreshing thread may hold a request up; Python's own 5 ms is half a budget
RETRY_AFTER_S = 10.0  # a refused bundle is looked at again after this: somebody may have repaired it

log = logging.getLogger(__name__)


class Features(Protocol):
    """Online features of one catalogue; live.online_features.OnlineFeatures is the one over Feast's Redis.

    `matrix`, there after load_items, is the newest snapshot of the items; it is replaced, never changed.
    """

    matrix: ItemMatrix

    async def read(
        self, user_id: str | None, session_id: str | None, now: int, charge: bytes | None = None
    ) -> VisitorRows:
        """Stored rows of the shopper and of the visit; `charge` is a command that goes along."""

    def load_items(self) -> None:
        """Read the whole item matrix."""

    def refresh(self, ready: "Ready") -> int:
        """Put a snapshot with the rows that changed since in place, inside `ready`; how many were read."""


Ready = Callable[[ItemMatrix], AbstractContextManager[None]]  # what others make of a snapshot beforehand


def at_once(_: ItemMatrix) -> AbstractContextManager[None]:
    """Nobody makes anything of it."""
    return nullcontext()


class Loaded(NamedTuple):
    """A release ready to answer; releases of one embedding space share its features."""

    bundle: Bundle
    features: Features


class Current(NamedTuple):
    """What serves at this moment; `challenger` is None without a canary, or when its bundle was refused."""

    state: RolloutState
    champion: Loaded
    challenger: Loaded | None


class Releases:
    """Follows the rollout state of Redis; `current` is None until the first release is loaded."""

    def __init__(
        self,
        redis: Redis,
        open_features: Callable[[list[str], str], Features],
        silent_s: float = 10.0,
        ready: Ready = at_once,
    ) -> None:
        """Items that no request has seen yet are put in place inside `ready`, in a thread."""
        self._redis, self._open_features, self._silent_s = redis, open_features, silent_s
        self._ready = ready
        self._held: dict[str, Loaded] = {}  # digest -> what may be pointed to at once
        self._refused: dict[str, tuple[float, str]] = {}  # digest -> when, on the loop's clock, and why
        self._acted: RolloutState | None = None  # what the last poll that came to an end was asked for
        self._loading, self._since_us = "", 0
        self._aside: dict[str, str] = {}  # digests of what is tried out beside, by what for
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.current: Current | None = None

    async def poll(self) -> None:
        """Look once, load what is missing, swap. Raises redis' errors; a refused bundle is logged instead.

        UnavailableError where Redis has lost the state: what is loaded serves on.
        """
        wanted = await asyncio.to_thread(state.read, self._redis)
        if wanted is None and self.current is not None:  # it served, and somebody took it away
            raise UnavailableError(changes.EMPTY, next_step=changes.MEND)
        if wanted is None or not self._behind(wanted):
            return
        if self._acted is None or self._acted.version != wanted.version:
            self._refused.clear()  # somebody acted, and may have repaired what was refused
        champion = await self._load(wanted.champion) or await self._stand_in(wanted)
        challenger = await self._load(wanted.challenger) if wanted.challenger else None
        if champion is not None:
            self._point(Current(wanted, champion, challenger))
        self._acted = wanted

    def _point(self, found: Current) -> None:
        wanted, champion, challenger = found
        if self.current is None or self.current.champion.bundle.digest != champion.bundle.digest:
            self._since_us = time.time_ns() // 1000
        self.current = found
        serving = {one.bundle.digest: one for one in (champion, challenger) if one}
        self._held |= serving  # what was in the shadow may have left it a moment ago
        for digest in set(self._held) - set(serving) - self._named(wanted):
            del self._held[digest]  # in place: a thread may be adding another
        settle()
        as_asked = champion.bundle.digest == wanted.champion.digest
        prometheus.STAND_IN.set(not as_asked)
        if as_asked:
            prometheus.RELEASE_VERSION.set(wanted.version)
        log.log(
            logging.INFO if as_asked else logging.ERROR,
            "rollout version %d: champion %s%s, challenger %s at %d %%",
            *(wanted.version, champion.bundle.digest),
            "" if as_asked else f" stands in for {wanted.champion.digest}",
            *(challenger.bundle.digest if challenger else None, wanted.percent),
        )

    async def beside(self, wanted: Release | None, purpose: str) -> Loaded | None:
        """A release that is tried out, held while it is asked for; None where it is refused."""
        before, after = self._aside.get(purpose, ""), wanted.digest if wanted else ""
        self._aside[purpose] = after
        if before != after and (now := self.current):
            serving = {one.bundle.digest for one in (now.champion, now.challenger) if one}
            if before not in serving | self._named(now.state):
                self._held.pop(before, None)
        known = not wanted or wanted.digest in self._held
        found = await self._load(wanted) if wanted else None
        if found and not known:
            settle()
        return found

    def _named(self, wanted: RolloutState) -> set[str]:
        """Digests of what somebody may ask for."""
        return {r.digest for r in (wanted.champion, wanted.challenger, wanted.previous) if r} | {
            *self._aside.values()
        }

    def _behind(self, wanted: RolloutState) -> bool:
        now = asyncio.get_running_loop().time()
        if self._acted != wanted:
            return True
        named = [r.digest for r in (wanted.champion, wanted.challenger) if r]
        return any(now - self._refused[d][0] > RETRY_AFTER_S for d in named if d in self._refused)

    async def _stand_in(self, wanted: RolloutState) -> Loaded | None:
        """What serves in the place of a refused champion: what serves now, else the next best on disk."""
        if self.current is not None:
            return self.current.champion
        for release in _others(wanted):
            if found := await self._load(release):
                return found
        return None

    async def _load(self, wanted: Release) -> Loaded | None:
        held = self._held.get(wanted.digest)
        now = asyncio.get_running_loop().time()
        last, told = self._refused.get(wanted.digest, (-RETRY_AFTER_S, ""))
        if held or now - last < RETRY_AFTER_S:
            return held
        self._loading = wanted.digest
        try:
            found = await asyncio.to_thread(self._open, wanted)
        except (EndcapError, OSError) as error:
            self._refused[wanted.digest] = asyncio.get_running_loop().time(), str(error)
            prometheus.SWAPS.labels("refused").inc()
            if str(error) != told:
                log.error("release %s is not served: %s", wanted.digest, error)
            return None
        finally:
            self._loading = ""
        self._refused.pop(wanted.digest, None)
        prometheus.SWAPS.labels("loaded").inc()
        prometheus.RANKERS.labels(type(found.bundle.ranker).__name__).inc()
        return found

    async def report(self) -> None:
        """Tell Redis what this worker serves; without that it counts as dead after `silent_s` seconds."""
        await asyncio.to_thread(workers.write, self._redis, self._told(), self._silent_s)

    async def leave(self) -> None:
        """Take the report back at the end."""
        await asyncio.to_thread(workers.leave, self._redis, self.name)

    def _told(self) -> Report:
        now = self.current
        return Report(
            self.name,
            self._acted.version if self._acted else 0,
            now.champion.bundle.digest if now else "",
            now.challenger.bundle.digest if now and now.challenger else "",
            self._since_us,
            self._loading,
            {digest: why for digest, (_, why) in self._refused.items()},
            replaying(),
        )

    def _open(self, wanted: Release) -> Loaded:
        found = self._opened(wanted)
        with self._ready(found.features.matrix):
            self._held[wanted.digest] = found
        return found

    def _opened(self, wanted: Release) -> Loaded:
        path = root() / wanted.path
        found = bundle.load(path)
        if found.digest != wanted.digest:
            next_step = "release it again: the pointer and the folder disagree"
            raise BundleError(path, "digest", wanted.digest, found.digest, next_step)
        for held in self._held.values():
            if held.bundle.manifest["space"] == found.manifest["space"]:  # same rows, same vectors
                return Loaded(found, held.features)
        features = self._open_features(found.models.ids, found.manifest["space"])
        features.load_items()
        return Loaded(found, features)

    def snapshots(self) -> list[ItemMatrix]:
        """The items of every release that is loaded, each catalogue once."""
        return [features.matrix for features in self._features()]

    def _features(self) -> list[Features]:
        return list({id(held.features): held.features for held in tuple(self._held.values())}.values())

    async def refresh(self) -> None:
        """Read the items that changed, once per embedding space."""
        for features in self._features():
            prometheus.ITEM_ROWS.inc(await asyncio.to_thread(features.refresh, self._ready))


def _others(wanted: RolloutState) -> Iterator[Release]:
    """What may stand in for the champion: previous, the one on trial, then the newest on disk."""
    named = [r for r in (wanted.champion, wanted.previous, wanted.challenger) if r]
    yield from named[1:]
    yield from (release for release in bundle.installed() if release not in named)


def settle() -> None:
    """Take what is loaded out of the garbage collector's sight, make it look less often, and threads yield.

    A full collection walks every object of the models: p99 at 200 requests/s was 149 ms with it, 10 without.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 100)
    sys.setswitchinterval(SWITCH_S)
