"""What a consumer asks of a log of events. Redis Streams is one, a topic in Kafka is another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from redis import Redis

from feature_repo.eventlog import Lag, StreamParams, kafka_topic

Positions = Mapping[int, str | None]  # partition -> position; None: before its first entry


class Entry(NamedTuple):
    """One entry as it was written. `only` names the group that is to apply it; None: every group."""

    partition: int
    position: str
    raw: bytes
    only: str | None


class Holder(NamedTuple):
    """Who works on a task: `name` as it stands at the key `lease`."""

    lease: str
    name: str


class LeaseLostError(Exception):
    """Another consumer took over; what this one holds in memory may be outdated."""


class EventLog(Protocol):
    """A reader of some partitions for one group, and what else is to be known of the log.

    Where a reader stands is kept by its consumer, beside the rows that follow from it. Errors of the log's
    client are raised as they are, or as OSError; the consumer then begins again with `open`.
    """

    position: str  # pattern of a position

    def check(self) -> None:
        """Raises ParamsError for settings that this log cannot have."""

    def open(self, applied: Positions) -> None:
        """Read on after these positions."""

    def read(self, limit: int, block_ms: int) -> list[Entry]:
        """The next entries, about `limit`, each partition's in order; waits `block_ms` for the first."""

    def acknowledge(self, pipe: Any, entries: Sequence[Entry]) -> None:
        """Add to the transaction `pipe` what the log itself keeps about entries that are applied."""

    def committed(self, applied: Positions) -> None:
        """The transaction was executed."""

    def ends(self) -> dict[int, str | None]:
        """Newest position of every partition; None where there was never an entry."""

    def before(self, arrival_ms: int) -> dict[int, str | None]:
        """The newest position of every partition that arrived before an instant."""

    def lag(self) -> dict[str, Lag]:
        """How far each group is behind."""

    def append(self, partition: int, raw: bytes, only: str | None) -> None:
        """Write one entry, surely."""

    def trim(self, applied: Mapping[int, str]) -> None:
        """Drop entries that every group applied `keep_hours` ago."""

    def forget(self) -> None:
        """No entry that stands in the log now is to be applied."""

    def close(self) -> None:
        """Give back what was opened."""


def open_log(redis: Redis, params: StreamParams, group: str = "", holder: Holder | None = None) -> EventLog:
    """The shop's log; a reader also says for which group, and by which lease."""
    if topic := kafka_topic(params):
        from pipelines.eventlog_kafka import KafkaLog  # both import this module

        return KafkaLog(redis, params, group, topic)
    from pipelines.eventlog_redis import RedisLog

    return RedisLog(redis, params, group, holder or Holder("", ""))
