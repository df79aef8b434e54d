"""The releases that a worker holds: champion, challenger and their item matrices, behind one pointer.

The pointer is immutable and swapped whole, so a request sees one state from start to end. A poller follows
`endcap:rollout`; a bundle is loaded in a thread and only then pointed to. A refused one changes nothing. A
refresh puts another snapshot in the place of an item matrix; a request that has begun keeps its own.
"""

import asyncio
import gc
import logging
import sys
from collections.abc import Callable
from typing import NamedTuple, Protocol

from redis import Redis

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.errors import EndcapError, UnavailableError
from feature_repo.online import changes
from feature_repo.params import root
from serving import prometheus
from serving.errors import BundleError
from serving.pipeline import Bundle
from serving.release import bundle, state
from serving.release.state import RolloutState
from serving.types import VisitorRows

SWITCH_S = 0.0005  # how long a refreshing thread may hold a request up; Python's own 5 ms is half a budget
RETRY_AFTER_S = 10.0  # a refused bundle is looked at again after this: somebody may have repaired it

log = logging.getLogger(__name__)


class Features(Protocol):
    """Online features of one catalogue; live.online_features.OnlineFeatures is the one over Feast's Redis.

    `matrix`, there after load_items, is the newest snapshot of the items; it is replaced, never changed.
    """

    matrix: ItemMatrix

    async def read(self, user_id: str | None, session_id: str | None, now: int) -> VisitorRows:
        """Stored rows of the shopper and of the visit."""

    def load_items(self) -> None:
        """Read the whole item matrix."""

    def refresh(self) -> int:
        """Put a snapshot with the rows that changed since in place; how many were read."""


class Loaded(NamedTuple):
    """A release ready to answer; releases of one catalogue share its features."""

    bundle: Bundle
    features: Features


class Current(NamedTuple):
    """What serves at this moment; `challenger` is None without a canary, or when its bundle was refused."""

    state: RolloutState
    champion: Loaded
    challenger: Loaded | None


class Releases:
    """Follows the rollout state of Redis; `current` is None until the first champion is loaded."""

    def __init__(self, redis: Redis, open_features: Callable[[list[str]], Features]) -> None:
        self._redis, self._open_features = redis, open_features
        self._held: dict[str, Loaded] = {}  # digest -> what may be pointed to at once
        self._refused: dict[str, float] = {}  # digest -> when, on the loop's clock
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
        champion = await self._load(wanted.champion)
        challenger = await self._load(wanted.challenger) if wanted.challenger else None
        if champion is None and self.current is not None:
            champion = self.current.champion
        if champion is None:
            return
        self.current = Current(wanted, champion, challenger)
        keep = {r.digest for r in (wanted.champion, wanted.challenger, wanted.previous) if r}
        self._held = {d: held for d, held in self._held.items() if d in keep or held is champion}
        settle()
        prometheus.RELEASE_VERSION.set(wanted.version)
        log.info(
            "rollout version %d: champion %s, challenger %s at %d %%",
            *(wanted.version, champion.bundle.digest),
            *(challenger.bundle.digest if challenger else None, wanted.percent),
        )

    def _behind(self, wanted: RolloutState) -> bool:
        now = asyncio.get_running_loop().time()
        if self.current is None or self.current.state != wanted:
            return True
        named = [r.digest for r in (wanted.champion, wanted.challenger) if r]
        return any(now - self._refused[d] > RETRY_AFTER_S for d in named if d in self._refused)

    async def _load(self, wanted: state.Release) -> Loaded | None:
        held = self._held.get(wanted.digest)
        now = asyncio.get_running_loop().time()
        if held or now - self._refused.get(wanted.digest, -RETRY_AFTER_S) < RETRY_AFTER_S:
            return held
        try:
            found = await asyncio.to_thread(self._open, wanted)
        except (EndcapError, OSError) as error:
            self._refused[wanted.digest] = now
            prometheus.SWAPS.labels("refused").inc()
            log.error("release %s is not served: %s", wanted.digest, error)
            return None
        self._refused.pop(wanted.digest, None)
        self._held[wanted.digest] = found
        prometheus.SWAPS.labels("loaded").inc()
        return found

    def _open(self, wanted: state.Release) -> Loaded:
        path = root() / wanted.path
        found = bundle.load(path)
        if found.digest != wanted.digest:
            next_step = "release it again: the pointer and the folder disagree"
            raise BundleError(path, "digest", wanted.digest, found.digest, next_step)
        for held in self._held.values():
            if held.bundle.models.ids == found.models.ids:  # same catalogue, same matrix
                return Loaded(found, held.features)
        features = self._open_features(found.models.ids)
        features.load_items()
        return Loaded(found, features)

    async def refresh(self) -> None:
        """Read the items that changed, once per catalogue."""
        for features in {id(held.features): held.features for held in self._held.values()}.values():
            prometheus.ITEM_ROWS.inc(await asyncio.to_thread(features.refresh))


def settle() -> None:
    """Take what is loaded out of the garbage collector's sight, make it look less often, and threads yield.

    A full collection walks every object of the models: p99 at 200 requests/s was 149 ms with it, 10 without.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 100)
    sys.setswitchinterval(SWITCH_S)
