"""A worker's eye on the guard: a canary that nobody watches steps back to the champion by itself.

What counts is that the guard's beats go on, timed by this process' own monotonic clock: no clock that jumps,
of Redis, of the guard or of this machine, ends a canary or keeps one alive. While Redis is away the guard
cannot beat either. The worker then stops giving the challenger, and when Redis is back the guard has its
whole time again to show itself before the state is changed.
"""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress

from redis import Redis
from redis.exceptions import RedisError

from serving import prometheus
from serving.release import state
from serving.release.looks import Beat, publish_alarms, read_beat
from serving.release.state import Act, RolloutConflict, RolloutState

BLIND = 0.25  # of the guard's time: after so long without a look this worker begins to count anew
BLIND_S = 5.0  # at least: some looks may be late


class Vigil:
    """Whether the canary's guard lives, as this worker sees it."""

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis, self._clock = redis, clock
        self._seen: tuple[int, int] | None = None  # version of the step, beats of the guard
        self._alive_at = self._steady_since = self._looked_at = clock()
        self._timeout_s, self._age_s = math.inf, math.nan
        self._over = 0  # newest version that was seen without a canary

    def guarded(self, version: int) -> bool:
        """Whether the challenger of this version of the rollout may be given to anybody."""
        return version > self._over and self._clock() - self._alive_at <= self._timeout_s

    async def look(self) -> None:
        """Look once; the canary without a guard is ended. Raises redis' errors."""
        await asyncio.to_thread(self._look)
        await asyncio.to_thread(publish_alarms, self._redis)

    def _look(self) -> None:
        try:
            found, beat = state.read(self._redis), read_beat(self._redis)
        except (RedisError, OSError):
            prometheus.GUARD_AGE.set(self._age_s + self._clock() - self._looked_at)  # it goes on
            raise
        now = self._clock()
        self._age_s = beat.age_s if beat else math.nan
        prometheus.GUARD_AGE.set(self._age_s)
        prometheus.GUARD_ALARM.set(bool(beat and beat.alarm))
        if found is None or found.challenger is None:
            self._over = max(self._over, found.version if found else 0)
            self._seen, self._timeout_s = None, math.inf
            self._alive_at = self._looked_at = now
            return
        if now - self._looked_at > max(BLIND * found.guard_timeout_s, BLIND_S):
            self._steady_since = now
        self._looked_at = now
        if self._seen != (seen := (found.version, beat.beats if beat else 0)):
            self._seen, self._alive_at = seen, now
        self._timeout_s = found.guard_timeout_s
        alone_s = now - max(self._alive_at, self._steady_since)
        if alone_s > found.guard_timeout_s:
            self._step_back(found, alone_s, beat)

    def _step_back(self, found: RolloutState, alone_s: float, beat: Beat | None) -> None:
        act = Act(
            "service",
            f"no living guard for {alone_s:.0f} s",
            time.time_ns() // 1000,
            {"guard_timeout_s": found.guard_timeout_s, "guard_age_s": beat and round(beat.age_s, 1)},
        )
        with suppress(RolloutConflict):  # another worker, a guard or a person was first
            self._over = max(self._over, state.rollback(self._redis, found, act).version)
