"""The exposure log: every answer becomes an entry of `endcap:exposures`, behind the answer's back.

The queue is bounded: when Redis is away for long, the oldest wait and the newest are dropped and counted. An
answer never waits for the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from serving import metrics

STREAM = "endcap:exposures"
BATCH = 256
PAUSE_S = 0.02  # gathers the answers of this long into one round trip
RETRY_S = 0.5

log = logging.getLogger(__name__)


class ExposureLog:
    """A bounded queue and the task that writes it to Redis."""

    def __init__(self, redis: Redis, kept: int, queued: int) -> None:
        """`kept`: entries that the stream holds, approximately; `queued`: entries that may wait here."""
        self._redis, self._kept, self._queued = redis, kept, queued
        self._waiting: deque[dict[str, Any]] = deque()

    def add(self, exposure: dict[str, Any]) -> None:
        """Take note; never blocks and never raises."""
        if len(self._waiting) >= self._queued:
            metrics.EXPOSURES.labels("dropped").inc()
        else:
            self._waiting.append(exposure)

    def __len__(self) -> int:
        return len(self._waiting)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S if await self.flush() else RETRY_S)

    async def flush(self) -> bool:
        """Write what waits; False if Redis refused, in which case it still waits."""
        while self._waiting:
            batch = [self._waiting[i] for i in range(min(BATCH, len(self._waiting)))]
            try:
                pipe = self._redis.pipeline(transaction=False)
                for entry in batch:
                    fields: dict[Any, Any] = {"exposure": orjson.dumps(entry)}
                    pipe.xadd(STREAM, fields, maxlen=self._kept, approximate=True)
                await pipe.execute()
            except (RedisError, OSError) as error:
                log.warning("exposures: %d wait, Redis: %s", len(self._waiting), error)
                return False
            for _ in batch:
                self._waiting.popleft()
            metrics.EXPOSURES.labels("written").inc(len(batch))
        return True
