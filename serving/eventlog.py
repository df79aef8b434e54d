"""What the door asks of the log of events. Redis Streams is one, a topic in Kafka is another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from redis.asyncio import Redis

from feature_repo.eventlog import Lag, StreamParams, kafka_topic

SEEN = "endcap:seen:"


class Written(NamedTuple):
    """Where an accepted event stands in the log; `twice`: it stood there before."""

    partition: int
    position: str
    twice: bool


class EventWriter(Protocol):
    """What the ingress asks of a log. Errors of the log's own client mean: not stored, or not surely."""

    async def write(self, events: Sequence[dict[str, Any]]) -> list[Written]:
        """Append canonical events; UnavailableError, and nothing is written, when too many wait already."""

    async def lag(self) -> dict[str, Lag]:
        """How far each group is behind."""

    async def close(self) -> None:
        """Give back what was opened."""


def open_writer(redis: Redis, params: StreamParams, seen_ttl_s: int) -> EventWriter:
    """Writes to the log that `params` and the environment name."""
    if topic := kafka_topic(params):
        from serving.eventlog_kafka import KafkaWriter  # both import this module

        return KafkaWriter(redis, params, topic, seen_ttl_s)
    from serving.eventlog_redis import RedisWriter

    return RedisWriter(redis, params, seen_ttl_s)


def seen_key(event_id: str) -> str:
    """The mark of an event id that was written: a fixed length, whatever the id looks like."""
    return SEEN + hashlib.blake2b(event_id.encode(), digest_size=16).hexdigest()


def read_mark(mark: bytes, twice: bool) -> Written:
    """What a mark says, "<partition>:<position>".

    >>> read_mark(b"3:1767225600000-17", True)
    Written(partition=3, position='1767225600000-17', twice=True)
    """
    partition, _, position = mark.decode().partition(":")
    return Written(int(partition), position, twice)
