"""Reads on where it stopped: in the stream `endcap:exposures`, and in the log of events, wherever that is."""

from __future__ import annotations

from typing import Any, Protocol

import orjson
from redis import Redis

from feature_repo.eventlog import StreamParams, kafka_topic, order, stream_keys
from feature_repo.params import load
from monitoring.feedback import Feedback

EXPOSURES = "endcap:exposures"
BATCH = 5_000


class EventTail(Protocol):
    """The log of events from a given instant of arrival on."""

    def next(self) -> list[dict[str, Any]]:
        """The next events, each partition's in order; empty when all that arrived has been read."""


class Tail:
    """Feeds a Feedback from the logs, beginning after the stream id `since` ("0-0": everything kept).

    The place is not stored anywhere: after a restart the guard reads its step again, from the step's
    beginning.
    """

    def __init__(self, redis: Redis, since: str = "0-0") -> None:
        self._redis: Any = redis
        self.exposures_at = since
        self._events = open_tail(redis, since)

    def feed(self, feedback: Feedback) -> int:
        """Take in all that has arrived; returns how many records. Exposures first: clicks refer to them."""
        total = 0
        while True:
            exposures = self._exposures()
            events = self._events.next()
            if not exposures and not events:
                return total
            feedback.update(exposures, events)
            total += len(exposures) + len(events)

    def _exposures(self) -> list[dict[str, Any]]:
        found = self._redis.xrange(EXPOSURES, min=f"({self.exposures_at}", count=BATCH)
        if found:
            self.exposures_at = _text(found[-1][0])
        return [_record(fields, "exposure") for _, fields in found]


def open_tail(redis: Redis, since: str) -> EventTail:
    """The shop's log of events after the arrival that the stream id `since` names."""
    params = load("stream", StreamParams)
    if topic := kafka_topic(params):
        from monitoring.tail_kafka import KafkaTail  # the client is needed only there

        return KafkaTail(topic, order(since)[0], BATCH)
    return RedisTail(redis, since, params.partitions)


class RedisTail:
    """The partitions `endcap:events:<p>`, merged in the order of arrival."""

    def __init__(self, redis: Redis, since: str, partitions: int) -> None:
        self._redis: Any = redis
        self._at = dict.fromkeys(stream_keys(partitions), since)

    def next(self) -> list[dict[str, Any]]:
        """A partition that has more than fits holds the others back at its end."""
        arrived: list[tuple[tuple[int, ...], str, Any]] = []
        full: list[int] = []  # arrival (ms) of the newest entry that was read of a partition with more
        for key, after in self._at.items():
            found = self._redis.xrange(key, min=f"({after}", count=BATCH)
            arrived += [(order(number), key, (number, fields)) for number, fields in found]
            if len(found) == BATCH:
                full.append(order(found[-1][0])[0])
        limit = min(full, default=None)
        records = []
        for place, key, (number, fields) in sorted(arrived, key=lambda one: one[:2]):
            if limit is None or place[0] <= limit:
                self._at[key] = _text(number)
                records.append(_record(fields, "event"))
        return records


def _record(fields: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(fields.get(name.encode()) or fields[name])
    return found


def _text(number: bytes | str) -> str:
    return number.decode() if isinstance(number, bytes) else number
