"""?wait=1: until the features hold what a POST brought. One look at Redis serves everybody who waits.

A worker keeps so many waiting and no more: whoever comes then is told at once that it is not applied yet,
which is true, and the events are accepted all the same.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_repo.eventlog.keys import APPLIED, GROUPS, applied_field, order
from serving.http.connections import DRAINING

LOOK_S = 0.002  # between two looks, while somebody waits

Wanted = Mapping[str, tuple[int, ...]]  # field of APPLIED -> the position to be reached


class Waiters:
    """The requests of this worker that wait."""

    def __init__(self, redis: Redis, most: int) -> None:
        self._redis: Any = redis
        self._most = most
        self._waiting: dict[asyncio.Future[None], Wanted] = {}
        self._watch: asyncio.Task[None] | None = None

    async def applied(self, last: Mapping[int, str], limit_s: float) -> bool:
        """True once both groups applied `last`; False after `limit_s`, or where too many wait already."""
        wanted = {applied_field(group, p): order(at) for p, at in last.items() for group in GROUPS}
        if not wanted:
            return True
        if len(self._waiting) >= self._most:
            return False
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[told] = wanted
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look())
        try:
            await asyncio.wait_for(told, limit_s)
        except TimeoutError:
            return False
        except asyncio.CancelledError:
            if not told.cancelled():
                raise  # the client went away
            return False  # the worker ends
        finally:
            self._waiting.pop(told, None)
        return True

    async def _look(self) -> None:
        """Runs while somebody waits. An absent Redis may be back before the waiters give up."""
        while self._waiting:
            if DRAINING.is_set():
                for told in self._waiting:
                    told.cancel()
                return
            try:
                found = await self._redis.hgetall(APPLIED)
            except (RedisError, OSError):
                found = {}
            at = {name.decode(): order(position) for name, position in found.items()}
            for told, wanted in self._waiting.items():
                if not told.done() and all(at.get(name, ()) >= asked for name, asked in wanted.items()):
                    told.set_result(None)
            await asyncio.sleep(LOOK_S)
