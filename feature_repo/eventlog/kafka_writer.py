"""The log of live events in Kafka: a POST is answered when every replica that must have it has its events.

Delivery is at least once: a client that got no answer sends again, and the same event may then stand in
the topic twice. A mark in Redis tells most resends at the door; the consumers know the rest by their own
marks. Redis may be away: events are accepted all the same.
"""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
from confluent_kafka import Producer
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_repo.errors import UnavailableError
from feature_repo.eventlog.contract import Lag, Written, read_mark
from feature_repo.eventlog.kafka_client import Offsets, client_options
from feature_repo.eventlog.keys import (
    APPLIED,
    ITEMS,
    SAID,
    KafkaTopic,
    StreamParams,
    applied_fields,
    partition_of,
    seen_key,
)

DELIVERY_S = 10.0  # the client was told long before; what still arrives counts once
OPTIONS: dict[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,  # no reordering or doubling by the client's own retries
    "linger.ms": 2,
    "message.timeout.ms": int(DELIVERY_S * 1000),
}
POLL_S = 0.1


def _delivered(told: asyncio.Future[tuple[Any, Any]], error: Any, message: Any) -> None:
    """Called by the producer's thread for each entry."""

    def tell() -> None:
        if not told.done():  # else the request gave up
            told.set_result((error, message))

    told.get_loop().call_soon_threadsafe(tell)


class KafkaWriter:
    """Writes to the topic; `redis` holds the marks of event ids, and what is applied."""

    def __init__(self, redis: Redis, params: StreamParams, topic: KafkaTopic, seen_ttl_s: int) -> None:
        self._redis: Any = redis
        self._params, self._topic, self._seen_ttl_s = params, topic, seen_ttl_s
        self._producer = Producer({**client_options(topic), **OPTIONS})
        self._offsets = Offsets(topic)
        self._behind = 0  # entries of the slower group, when last looked at
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._deliver, name="kafka deliveries", daemon=True)
        self._thread.start()

    async def write(self, events: Sequence[dict[str, Any]]) -> list[Written]:
        self._require_room()
        keys = [seen_key(event) for event in events]
        found = await self._marks(keys)
        fresh: dict[str, dict[str, Any]] = {}
        for key, event in zip(keys, events, strict=True):
            if key not in found:
                fresh.setdefault(key, event)
        found |= await self._append(fresh)
        answers, told = [], set()
        for key in keys:
            one = found[key]
            answers.append(one._replace(twice=one.twice or key in told))
            told.add(key)
        return answers

    async def _append(self, fresh: dict[str, dict[str, Any]]) -> dict[str, Written]:
        """Mark -> where its event stands, once all are stored."""
        if not fresh:
            return {}
        entries = [(event["session_id"], event) for event in fresh.values()]
        written = dict(zip(fresh, await self._produce(entries, []), strict=True))
        with suppress(RedisError, OSError):  # a resend is then written twice, and applied once
            async with self._redis.pipeline(transaction=False) as pipe:
                for key, (partition, position, _) in written.items():
                    pipe.set(key, f"{partition}:{position}", ex=self._seen_ttl_s)
                await pipe.execute()
        return written

    async def write_changes(self, changes: Sequence[dict[str, Any]]) -> list[Written]:
        self._require_room()
        with suppress(RedisError, OSError):  # then nobody applies any, and none is noted
            if (notes := await self._redis.xlen(SAID)) > self._params.max_backlog:
                raise UnavailableError(f"{notes} changes wait for the offline log")
        headers: list[tuple[str, str | bytes | None]] = [("only", ITEMS)]
        return await self._produce([(change["item_id"], change) for change in changes], headers)

    def _require_room(self) -> None:
        if self._behind > self._params.max_backlog:
            raise UnavailableError(
                f"{self._behind} events wait to be applied, more than {self._params.max_backlog}"
            )

    async def _produce(
        self, entries: Sequence[tuple[str, dict[str, Any]]], headers: list[tuple[str, str | bytes | None]]
    ) -> list[Written]:
        """Where each (key of its partition, entry) stands, once all are stored."""
        told = [asyncio.get_running_loop().create_future() for _ in entries]
        partitions = [partition_of(key, self._params.partitions) for key, _ in entries]
        try:
            for (_, entry), partition, one in zip(entries, partitions, told, strict=True):
                self._producer.produce(
                    self._topic.name,
                    orjson.dumps(entry),
                    partition=partition,
                    headers=headers,
                    on_delivery=partial(_delivered, one),
                )
        except BufferError:
            raise UnavailableError("events cannot be stored (too many wait for the brokers)") from None
        answers = await asyncio.gather(*told)
        if errors := [error for error, _ in answers if error]:
            raise UnavailableError(f"events cannot be stored ({errors[-1]})")
        found = zip(partitions, answers, strict=True)
        return [Written(partition, str(message.offset()), False) for partition, (_, message) in found]

    async def _marks(self, keys: Sequence[str]) -> dict[str, Written]:
        """Mark -> where its event stands, of those that are known to have been written."""
        if not keys:
            return {}
        try:
            marks = await self._redis.mget(keys)
        except (RedisError, OSError):
            return {}
        found = zip(keys, marks, strict=True)
        return {key: read_mark(mark, True) for key, mark in found if mark}

    async def lag(self) -> dict[str, Lag]:
        fields = applied_fields(self._params.partitions)
        applied = dict(zip(fields, await self._redis.hmget(APPLIED, fields), strict=True))
        found = await asyncio.to_thread(self._offsets.lag, applied)
        self._behind = max(lag.events for lag in found.values())
        return found

    async def close(self) -> None:
        await asyncio.to_thread(self._producer.flush, DELIVERY_S)
        self._closed.set()
        await asyncio.to_thread(self._thread.join)
        self._offsets.close()

    def _deliver(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(POLL_S)
