"""What the door, the consumers and the watchers ask of the log of events.

Redis Streams is one such log, a topic in Kafka is another; `open.py` opens the one that the shop uses. This
module imports neither.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

Positions = Mapping[int, str | None]  # partition -> position; None: before its first entry


class Lag(NamedTuple):
    """How far a group is behind the log."""

    events: int
    seconds: float  # since the oldest entry that is not applied arrived


class Entry(NamedTuple):
    """One entry as it was written. `only` names the group that is to apply it; None: every group."""

    partition: int
    position: str
    raw: bytes
    only: str | None


class Written(NamedTuple):
    """Where an accepted event stands in the log; `twice`: it stood there before."""

    partition: int
    position: str
    twice: bool


def read_mark(mark: bytes, twice: bool) -> Written:
    """What a mark says, "<partition>:<position>".

    >>> read_mark(b"3:1767225600000-17", True)
    Written(partition=3, position='1767225600000-17', twice=True)
    """
    partition, _, position = mark.decode().partition(":")
    return Written(int(partition), position, twice)


class Holder(NamedTuple):
    """Who works on a task: `name` as it stands at the key `lease`."""

    lease: str
    name: str


class LeaseLostError(Exception):
    """Another consumer took over; what this one holds in memory may be outdated."""


class EventWriter(Protocol):
    """What the ingress asks of a log. Errors of the log's own client mean: not stored, or not surely."""

    async def write(self, events: Sequence[dict[str, Any]]) -> list[Written]:
        """Append canonical events; UnavailableError, and nothing is written, when too many wait already."""

    async def write_changes(self, changes: Sequence[dict[str, Any]]) -> list[Written]:
        """Append changes of items, each to the partition of its item and for the group `items`; likewise.

        None is known as sent before: said again, it says the same.
        """

    async def lag(self) -> dict[str, Lag]:
        """How far each group is behind."""

    async def close(self) -> None:
        """Give back what was opened."""


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


class EventTail(Protocol):
    """The events of the log from a given instant of arrival on, without the changes of items."""

    def next(self) -> list[tuple[int, dict[str, Any]]]:
        """Arrival (ms) and event of the next ones, each partition's in order; empty when all have been read.

        What an error interrupts is given by the next call: nothing is left out, nothing comes twice.
        """
