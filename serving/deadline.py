"""The shopper's stored rows in time, or none: a list without history is better than a late one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from serving.complaints import Complaints
from serving.params import Serving
from serving.releases import Features
from serving.types import Request

UNAVAILABLE = "features_unavailable"
Row = Mapping[str, Any] | None


class TimelyRows:
    """Reads with a deadline. After `breaker_misses` failures in a row none is tried for `breaker_ms`."""

    def __init__(self, params: Serving, complain: Complaints) -> None:
        self._params, self._complain = params, complain
        self._misses = 0
        self._shut_until = 0.0

    async def read(self, features: Features, request: Request, now: int) -> tuple[Row, Row, str | None]:
        """(user row, session row, None), or (None, None, UNAVAILABLE); never raises."""
        if request.user_id is None and request.session_id is None:
            return None, None, None
        clock = asyncio.get_running_loop().time
        if clock() < self._shut_until:
            return None, None, UNAVAILABLE
        try:
            async with asyncio.timeout(self._params.feature_deadline_ms / 1000):
                user, session = await features.read(request.user_id, request.session_id, now)
        except Exception as error:  # whatever it is, the answer is made without rows
            self._misses += 1
            if self._misses >= self._params.breaker_misses:
                self._shut_until = clock() + self._params.breaker_ms / 1000
            self._complain("feature read", error)
            return None, None, UNAVAILABLE
        self._misses = 0
        return user, session, None
