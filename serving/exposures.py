"""The log of what was shown, written behind the answer's back.

    endcap:exposures   every answer: `exposure`, JSON
    endcap:served      a sample of the live answers: `meta`, JSON {request_id, ts, arm, bundle, surface,
                       user_id, session_id, schema, items}, and `features`, the model inputs of the candidates
                       `items`, little-endian float32 (k, 28): what the ranker is trained on are candidates,
                       and the winners alone would look drifted on every day

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
from serving.types import Floats

EXPOSURES, SERVED = "endcap:exposures", "endcap:served"
BATCH = 256
PAUSE_S = 0.02  # gathers the answers of this long into one round trip
RETRY_S = 0.5

log = logging.getLogger(__name__)


class ExposureLog:
    """A bounded queue and the task that writes it to Redis."""

    def __init__(self, redis: Redis, kept: dict[str, int], queued: int) -> None:
        """`kept`: stream -> entries that it holds, approximately; `queued`: entries that may wait here."""
        self._redis, self._kept, self._queued = redis, kept, queued
        self._waiting: deque[tuple[str, dict[Any, Any]]] = deque()

    def add(self, exposure: dict[str, Any]) -> None:
        """Take note of an answer; never blocks and never raises."""
        self._queue(EXPOSURES, {"exposure": orjson.dumps(exposure)})

    def add_sample(self, meta: dict[str, Any], features: Floats) -> None:
        """Take note of the inputs (k, 28) behind an answer; never blocks and never raises."""
        self._queue(SERVED, {"meta": orjson.dumps(meta), "features": features.astype("<f4").tobytes()})

    def _queue(self, stream: str, fields: dict[Any, Any]) -> None:
        if len(self._waiting) >= self._queued:
            metrics.LOGGED.labels(stream, "dropped").inc()
        else:
            self._waiting.append((stream, fields))

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
                for stream, fields in batch:
                    pipe.xadd(stream, fields, maxlen=self._kept[stream], approximate=True)
                await pipe.execute()
            except (RedisError, OSError) as error:
                log.warning("exposures: %d wait, Redis: %s", len(self._waiting), error)
                return False
            for stream, _ in batch:
                self._waiting.popleft()
                metrics.LOGGED.labels(stream, "written").inc()
        return True
