"""The shopper's stored rows in time, or none: a list without history is better than a late one."""

import asyncio

from serving.access.tolls import Toll
from serving.live.complaints import Complaints
from serving.params import Serving
from serving.release.loaded import Features
from serving.types import NO_ROWS, Request, VisitorRows

UNAVAILABLE = "features_unavailable"


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
            async with asyncio.timeout(self._params.feature_deadline_ms / 1000):
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
