"""The shopper's stored rows in time, or none: a list without history is better than a late one.

The deadline is Redis'. While the worker itself is late, an answer may lie there unread: where the deadline is
noticed too late, the worker gets as long again to read what has come.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.access.tolls import Toll
from serving.live.complaints import Complaints
from serving.params import Serving
from serving.rails.rail import Rail
from serving.rails.shopper_rails import ShopperRails
from serving.release.loaded import Features
from serving.types import NO_ROWS, Request, VisitorRows

UNAVAILABLE = "features_unavailable"
NOTICED_S = 0.005  # a timer that fires so late tells of the worker, not of Redis


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """As asyncio.timeout, and as long again as the worker noticed it late, once. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds

    def judge() -> None:
        late_s = loop.time() - due
        if late_s > NOTICED_S:
            timers.append(loop.call_later(min(late_s, seconds), end))
        else:
            end()

    def end() -> None:
        limit.reschedule(loop.time())

    async with asyncio.timeout(None) as limit:
        timers = [loop.call_later(seconds, judge)]
        try:
            yield
        finally:
            timers[-1].cancel()


class TimelyRows:
    """Reads with a deadline. After `breaker_misses` failures in a row none is tried for `breaker_ms`."""

    def __init__(self, params: Serving, complain: Complaints) -> None:
        self._params, self._complain = params, complain
        self._misses = 0
        self._shut_until = 0.0

    async def read(
        self, features: Features, request: Request, now: int, toll: Toll | None = None
    ) -> tuple[VisitorRows, str | None]:
        """(the rows, None), or (NO_ROWS, UNAVAILABLE); never raises. The `toll` is charged by the way."""
        nobody = request.user_id is None and request.session_id is None
        if nobody and toll is None:
            return NO_ROWS, None
        missed = None if nobody else UNAVAILABLE
        clock = asyncio.get_running_loop().time
        if clock() < self._shut_until:
            return NO_ROWS, missed
        try:
            async with within(self._params.feature_deadline_ms / 1000):
                charge = toll.command if toll else None
                rows = await features.read(request.user_id, request.session_id, now, charge)
        except Exception as error:  # whatever it is, the answer is made without rows
            self._misses += 1
            if self._misses >= self._params.breaker_misses:
                self._shut_until = clock() + self._params.breaker_ms / 1000
            self._complain("feature read", error)
            return NO_ROWS, missed
        self._misses = 0
        return rows, None

    async def rail(self, rails: ShopperRails | None, request: Request, bundle: str, now: int) -> Rail | None:
        """The shopper's list made beforehand; None where there is none in time. Never raises."""
        try:
            async with within(self._params.feature_deadline_ms / 1000):
                return await rails.of(request, bundle, now) if rails else None
        except Exception as error:
            self._complain("rail", error)
            return None
