"""What readers and writers of a log in Kafka share: their options, where it ends, how far behind a group is.

kafka://HOST:PORT[,HOST:PORT]/TOPIC    `stream.log`, or ENDCAP_EVENT_LOG
ENDCAP_KAFKA_OPTIONS                   a file with librdkafka's options, one name=value a line: TLS, SASL

The topic has at least `stream.partitions` partitions, and the writers choose: partition_of(session). Entries
are kept as long as the topic keeps them. A record's value is the event as JSON; a header `only` names the
group that is to apply it.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from feature_repo.errors import ParamsError
from feature_repo.eventlog.contract import Lag
from feature_repo.eventlog.keys import GROUPS, KafkaTopic, applied_field

ANSWER_S = 5.0  # how long a broker may take for an answer
log = logging.getLogger(__name__)


def client_options(topic: KafkaTopic) -> dict[str, Any]:
    """Options of every client. Raises ParamsError for a line of ENDCAP_KAFKA_OPTIONS that is none."""
    found = {"bootstrap.servers": topic.servers, "socket.timeout.ms": int(ANSWER_S * 1000)}
    if path := os.environ.get("ENDCAP_KAFKA_OPTIONS"):
        for number, line in enumerate(Path(path).read_text().splitlines(), 1):
            name, equals, value = line.partition("=")
            if line.strip().startswith("#") or not line.strip():
                continue
            if not equals:  # the line itself is not told: it may hold a password
                raise ParamsError(f"ENDCAP_KAFKA_OPTIONS: line {number} is not allowed; allowed: name=value")
            found[name.strip()] = value.strip()
    return found


def reader(topic: KafkaTopic, group: str, **options: Any) -> Consumer:
    """A consumer that reads only what it assigns itself; where it stands is kept elsewhere."""
    fixed = {"group.id": f"endcap-{group}", "enable.auto.commit": False}
    fixed |= {"auto.offset.reset": "error"}  # entries that are gone are not skipped in silence
    return Consumer({**client_options(topic), **fixed, **options}, logger=log)


def following(position: str | bytes | None) -> int:
    """The offset after a position.

    >>> following(b"17"), following(None)
    (18, 0)
    """
    return 0 if position is None else int(position) + 1


@contextmanager
def told_as_os_error() -> Iterator[None]:
    """An error of the client becomes the OSError of the contract."""
    try:
        yield
    except KafkaException as error:
        raise OSError(str(error)) from error


class Offsets:
    """Where the partitions begin and end. Errors of the client are raised as OSError."""

    def __init__(self, topic: KafkaTopic) -> None:
        self._topic = topic
        # It looks at single entries: nothing is to be fetched ahead.
        small = {"queued.min.messages": 1, "fetch.message.max.bytes": 65_536}
        self._consumer = reader(topic, "offsets", **small)
        self._arrivals: dict[int, tuple[int, int]] = {}  # partition -> (offset, ms) looked at last

    @told_as_os_error()
    def check(self) -> None:
        """Raises ParamsError if the topic has too few partitions."""
        metadata = self._consumer.list_topics(self._topic.name, timeout=ANSWER_S)
        found = len(metadata.topics[self._topic.name].partitions)
        if found < self._topic.partitions:
            raise ParamsError(
                f"stream.partitions: {self._topic.partitions} is not allowed for the topic "
                f"{self._topic.name!r}; allowed: at most its {found} partitions. Next: add partitions to it, "
                "or make it if there are none"
            )

    @told_as_os_error()
    def spans(self) -> dict[int, tuple[int, int]]:
        """Partition -> (offset of the first entry, offset after the last)."""
        parts = [TopicPartition(self._topic.name, p) for p in range(self._topic.partitions)]
        asked = partial(self._consumer.get_watermark_offsets, timeout=ANSWER_S, cached=False)
        return dict(enumerate(map(asked, parts)))

    @told_as_os_error()
    def since(self, arrival_ms: int) -> dict[int, int]:
        """Partition -> offset of the first entry that arrived at an instant or later, else the end."""
        asked = [TopicPartition(self._topic.name, p, arrival_ms) for p in range(self._topic.partitions)]
        spans = self.spans()
        found = self._consumer.offsets_for_times(asked, timeout=ANSWER_S)
        return {one.partition: one.offset if one.offset >= 0 else spans[one.partition][1] for one in found}

    def lag(self, applied: Mapping[str, str | bytes | None]) -> dict[str, Lag]:
        """How far each group is behind; `applied` as the hash APPLIED has it."""
        spans, now_ms, found = self.spans(), time.time() * 1000, {}
        for group in GROUPS:
            waiting = {
                p: start
                for p, (low, high) in spans.items()
                if (start := max(following(applied.get(applied_field(group, p))), low)) < high
            }
            events = sum(spans[p][1] - start for p, start in waiting.items())
            oldest = min((self._arrival(p, start) for p, start in waiting.items()), default=now_ms)
            found[group] = Lag(events, max(now_ms - oldest, 0.0) / 1000)
        return found

    def _arrival(self, partition: int, offset: int) -> float:
        """When an entry arrived, ms; now, where it cannot be read."""
        if (held := self._arrivals.get(partition)) and held[0] == offset:
            return held[1]
        self._consumer.assign([TopicPartition(self._topic.name, partition, offset)])
        message = self._consumer.poll(1.0)
        self._consumer.unassign()
        if message is None or message.error():
            return time.time() * 1000
        arrived = int(message.timestamp()[1])
        self._arrivals[partition] = offset, arrived
        return arrived

    def close(self) -> None:
        self._consumer.close()
