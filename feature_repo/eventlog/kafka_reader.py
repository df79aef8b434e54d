"""The log of events in Kafka, read by one consumer per task.

Partitions are assigned by the task's lease, not by Kafka's groups, and where a task stands is kept beside its
rows in Redis: only there can both change in one transaction. What is committed to Kafka is for its own tools.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
from confluent_kafka import KafkaException, Message, Producer, TopicPartition
from redis import Redis

from feature_repo.eventlog.contract import Entry, Lag, Positions
from feature_repo.eventlog.kafka_client import ANSWER_S, Offsets, client_options, following, reader
from feature_repo.eventlog.keys import (
    APPLIED,
    GROUPS,
    ITEM_CHANGE,
    KafkaTopic,
    StreamParams,
    applied_field,
    applied_fields,
)

READER = {
    "fetch.wait.max.ms": 100,
    "fetch.queue.backoff.ms": 10,  # a reader that catches up waits a second otherwise
    "queued.max.messages.kbytes": 16_384,
}
log = logging.getLogger(__name__)


class KafkaLog:
    """The partitions 0 .. `stream.partitions` - 1 of a topic."""

    position = r"\d+"

    def __init__(self, redis: Redis, params: StreamParams, group: str, topic: KafkaTopic) -> None:
        self._redis: Any = redis  # redis-py types every answer as "maybe awaitable"
        self._params, self._group, self._topic = params, group, topic
        self._offsets = Offsets(topic)
        self._reader = reader(topic, group, **READER) if group else None
        self._producer: Producer | None = None

    def check(self) -> None:
        self._offsets.check()

    def open(self, applied: Positions) -> None:
        assert self._reader is not None, "this log was opened without a group"
        self.check()
        spans = self._offsets.spans()
        starts = {p: self._start(p, position, *spans[p]) for p, position in applied.items()}
        self._reader.assign([TopicPartition(self._topic.name, p, start) for p, start in starts.items()])

    def _start(self, partition: int, position: str | None, low: int, high: int) -> int:
        """The offset after `position`; the first that is left where the topic does not hold that."""
        start = following(position)
        if low <= start <= high:
            return start
        if position is not None:
            log.error(
                "%s:%d has the entries %d to %d: it does not hold %d, the next of %s; reading on at %d",
                *(self._topic.name, partition, low, high - 1, start, self._group, low),
            )
        return low

    def read(self, limit: int, block_ms: int) -> list[Entry]:
        assert self._reader is not None, "this log was opened without a group"
        first = self._reader.poll(block_ms / 1000)
        if first is None:
            return []
        return [_entry(message) for message in (first, *self._reader.consume(limit - 1, timeout=0))]

    def acknowledge(self, pipe: Any, entries: Sequence[Entry]) -> None:
        """Kafka forgets nothing that was read."""

    def committed(self, applied: Positions) -> None:
        assert self._reader is not None, "this log was opened without a group"
        offsets = [TopicPartition(self._topic.name, p, following(at)) for p, at in applied.items()]
        with suppress(KafkaException):  # nothing here reads it
            self._reader.commit(offsets=offsets, asynchronous=True)

    def ends(self) -> dict[int, str | None]:
        return {p: _before(high) for p, (_, high) in self._offsets.spans().items()}

    def before(self, arrival_ms: int) -> dict[int, str | None]:
        return {p: _before(offset) for p, offset in self._offsets.since(arrival_ms).items()}

    def lag(self) -> dict[str, Lag]:
        fields = applied_fields(self._params.partitions)
        return self._offsets.lag(dict(zip(fields, self._redis.hmget(APPLIED, fields), strict=True)))

    def append(self, partition: int, raw: bytes, only: str | None) -> None:
        if self._producer is None:
            self._producer = Producer({**client_options(self._topic), "acks": "all"})
        headers: list[tuple[str, str | bytes | None]] = [("only", only)] if only else []
        self._producer.produce(self._topic.name, raw, partition=partition, headers=headers)
        if self._producer.flush(ANSWER_S):
            raise OSError(f"{self._topic.servers} did not take an entry within {ANSWER_S:.0f} s")

    def trim(self, applied: Mapping[int, str]) -> None:
        """The topic's own retention decides."""

    def forget(self) -> None:
        """Entries stay in the topic; both groups go on after them."""
        ends = {p: at for p, at in self.ends().items() if at is not None}
        if fields := {applied_field(group, p): at for p, at in ends.items() for group in GROUPS}:
            self._redis.hset(APPLIED, mapping=fields)

    def close(self) -> None:
        self._offsets.close()
        if self._reader is not None:
            self._reader.close()


class KafkaTail:
    """All partitions of the topic from an instant of arrival (ms) on, about `limit` entries at a time."""

    def __init__(self, topic: KafkaTopic, since_ms: int, limit: int) -> None:
        self._topic, self._limit = topic, limit
        self._offsets = Offsets(topic)
        self._reader = reader(topic, "tail")
        spans = self._offsets.spans()
        starts = self._offsets.since(since_ms) if since_ms else {p: low for p, (low, _) in spans.items()}
        self._at = {p: max(start, spans[p][0]) for p, start in starts.items()}
        self._reader.assign([TopicPartition(topic.name, p, at) for p, at in self._at.items()])
        self._found: list[tuple[int, int, dict[str, Any]]] = []  # read, and not given yet

    def next(self) -> list[tuple[int, dict[str, Any]]]:
        """In the order of arrival, as far as one answer of the brokers goes. Raises OSError."""
        ends = {p: high for p, (_, high) in self._offsets.spans().items()}
        found = self._found
        while len(found) < self._limit and any(self._at[p] < end for p, end in ends.items()):
            messages = self._reader.consume(self._limit, timeout=0.05)
            if not messages and not (messages := self._reader.consume(1, timeout=ANSWER_S)):
                raise OSError(
                    f"{self._topic.servers} gave no entry of {self._topic.name!r} in {ANSWER_S:.0f} s"
                )
            for message in messages:
                entry = _entry(message)
                self._at[entry.partition] = following(entry.position)
                record = orjson.loads(entry.raw or b"{}")
                if record.get("type") != ITEM_CHANGE:
                    found.append((message.timestamp()[1], entry.partition, record))
        self._found = []
        return [(arrived, record) for arrived, _, record in sorted(found, key=lambda one: one[:2])]


def _entry(message: Message) -> Entry:
    """Raises OSError for what is not an entry but an error of the client."""
    if error := message.error():
        raise OSError(str(error))
    headers: Any = message.headers() or ()
    only = dict(headers).get("only")
    partition, offset = message.partition(), message.offset()
    assert partition is not None and offset is not None
    return Entry(partition, str(offset), message.value() or b"", only.decode() if only else None)


def _before(offset: int) -> str | None:
    """The position before an offset.

    >>> _before(5), _before(0)
    ('4', None)
    """
    return str(offset - 1) if offset else None
