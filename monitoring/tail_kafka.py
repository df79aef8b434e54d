"""The log of events in Kafka, read on by whoever watches; no consumer notices."""

from __future__ import annotations

from typing import Any

import orjson
from confluent_kafka import TopicPartition

from feature_repo.eventlog import KafkaTopic
from feature_repo.eventlog_kafka import ANSWER_S, Offsets, reader


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

    def next(self) -> list[dict[str, Any]]:
        """In the order of arrival, as far as one answer of the brokers goes. Raises OSError."""
        ends = {p: high for p, (_, high) in self._offsets.spans().items()}
        found: list[tuple[int, int, dict[str, Any]]] = []
        while len(found) < self._limit and any(self._at[p] < end for p, end in ends.items()):
            messages = self._reader.consume(self._limit, timeout=0.05)
            if not messages and not (messages := self._reader.consume(1, timeout=ANSWER_S)):
                raise OSError(
                    f"{self._topic.servers} gave no entry of {self._topic.name!r} in {ANSWER_S:.0f} s"
                )
            for message in messages:
                if error := message.error():
                    raise OSError(str(error))
                partition, offset = message.partition(), message.offset()
                assert partition is not None and offset is not None
                self._at[partition] = offset + 1
                found.append((message.timestamp()[1], partition, orjson.loads(message.value() or b"{}")))
        return [record for _, _, record in sorted(found, key=lambda one: one[:2])]
