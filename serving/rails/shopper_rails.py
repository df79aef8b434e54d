"""The shopper's own rail, read from Redis while the shopper waits: one GET."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from serving import prometheus
from serving.rails.rail import ABSENT, Rail, RailParams, decode, key_of, stale, unit
from serving.types import Request


class ShopperRails:
    """Reads for a worker's event loop; `ask` sends packed commands to Redis (serving.live.wire.Wire.ask)."""

    def __init__(self, ask: Callable[[Sequence[bytes]], Awaitable[list[Any]]], params: RailParams) -> None:
        self._ask, self._max_age_s = ask, params.max_age_s

    async def of(self, request: Request, bundle: str, now: int) -> Rail | None:
        """What the release `bundle` may serve at `now` (us). Raises redis' errors and TimeoutError."""
        who = unit(request.user_id, request.session_id)
        if who is None:
            return None
        key = key_of(who).encode()
        (raw,) = await self._ask([b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key)])
        found: Rail | None = decode(raw) if raw else None
        why = ABSENT if found is None else stale(found, bundle, now, self._max_age_s)
        if why:
            prometheus.RAILS_REFUSED.labels("shopper", why).inc()
        return None if why else found
