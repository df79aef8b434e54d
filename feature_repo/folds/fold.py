"""What a fold is: the events that it reads, the parts of its state, and what the ranker reads of them.

A fold is one entity's stored row. It is declared as a list of parts (parts.py), each with its own
columns, its own step and its own readings. From that one declaration follow the Feast view, the backfill, the
live stream, the age limit, the ranker's columns and the table in docs/features.md.

    fold = columns + new() + step(state, event)       offline over history, online over the stream
    row(state) <-> state(row)                         what Feast stores is the state itself
    readings                                          brought to `now` by feature_repo.assemble.vectorize
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from feature_repo.clock import DAY_US

State = dict[str, Any]
DEFAULTS: Mapping[str, Any] = {
    "int64": 0,
    "float64": 0.0,
    "string": "",
    "list<string>": [],
    "list<int64>": [],
}


class Event(NamedTuple):
    """What folds read of a canonical event; `ts` in microseconds since 1970, UTC.

    `user_id` is None for an anonymous event, and for one without consent. `counted` is False for one that is
    no evidence: made up, repeated, faster than people.
    """

    ts: int
    type: str
    user_id: str | None
    session_id: str
    item_id: str | None
    request_id: str | None = None
    position: int | None = None
    device: str | None = None
    country: str | None = None
    channel: str | None = None
    consent: bool = True
    counted: bool = True


class Column(NamedTuple):
    """One stored value: `dtype` is a key of DEFAULTS, whose value stands before the first event."""

    name: str
    dtype: str
    unit: str
    doc: str


class Reading(NamedTuple):
    """One column of the ranker, computed from a stored row when it is asked for.

    `read` is called as read(row, visitor) -> float for a user's or a session's row, and as
    read(matrix, now, rows) -> float64 (n,) for items. `of` names the stored columns that it needs.
    """

    column: str
    unit: str
    doc: str
    of: tuple[str, ...]
    read: Callable[..., Any]


class Part:
    """One piece of a fold's state. Parts of one fold share the state and own their columns of it.

    `step` changes its own entries of `state`, for the event types that it names, and must not depend on when
    an event arrives wherever that can be had: the event's own `ts` decides.
    """

    types: frozenset[str]
    columns: tuple[Column, ...] = ()
    readings: tuple[Reading, ...] = ()

    def new(self) -> State:
        """The part's entries before the first event."""
        return {c.name: _copied(DEFAULTS[c.dtype]) for c in self.columns}

    def step(self, state: State, event: Event) -> None:
        """Take `event` in, in place."""
        raise NotImplementedError

    def row(self, state: State) -> dict[str, Any]:
        """The part's columns, lists copied."""
        return {c.name: _copied(state[c.name]) for c in self.columns}

    def state(self, row: Mapping[str, Any]) -> State:
        """The inverse of `row`."""
        return {c.name: _copied(row[c.name]) for c in self.columns}


@dataclass(frozen=True)
class Fold:
    """One entity's stored row. A row older than `max_age_days` is served as absent; 0: never too old.

    What is absent is gone: the next event starts the row anew, in the stream and in the backfill. A row that
    all shoppers share is `evidence`: what is not counted does not reach it.
    """

    name: str
    key: str
    max_age_days: int
    doc: str
    parts: tuple[Part, ...]
    evidence: bool = False

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        return tuple(column for part in self.parts for column in part.columns)

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        return tuple(reading for part in self.parts for reading in part.readings)

    @cached_property
    def types(self) -> frozenset[str]:
        """Event types that any part reads."""
        return frozenset().union(*(part.types for part in self.parts))

    @cached_property
    def steps(self) -> Mapping[str, tuple[Callable[[State, Event], None], ...]]:
        """Event type -> the steps of the parts that read it, in order."""
        return {kind: tuple(p.step for p in self.parts if kind in p.types) for kind in self.types}

    def new(self) -> State:
        """The state of an entity without events."""
        return {name: value for part in self.parts for name, value in part.new().items()}

    def reads(self, event: Event) -> bool:
        """Whether any part does."""
        return event.type in self.types and (event.counted or not self.evidence)

    def outlived(self, earlier: int, later: int) -> bool:
        """True if a row that stands at `earlier` is too old at `later` (us)."""
        return bool(self.max_age_days) and later - earlier > self.max_age_days * DAY_US

    def resumed(self, state: State, at: int, ts: int) -> State:
        """`state`, whose newest instant is `at`, as an event at `ts` meets it: new where it is too old."""
        return self.new() if self.outlived(at, ts) else state

    def step(self, state: State, event: Event) -> State:
        """The state after `event`, whose type is one of `types`; `state` is used up."""
        for step in self.steps[event.type]:
            step(state, event)
        return state

    def row(self, state: State) -> dict[str, Any]:
        """The state as column values, lists copied: what Feast stores."""
        return {name: value for part in self.parts for name, value in part.row(state).items()}

    def state(self, row: Mapping[str, Any]) -> State:
        """The inverse of `row`. A column that `row` lacks or holds as None, being newer, starts afresh.

        With a list the other lists of its part start afresh, too: they are parallel.
        """
        if len(row) < len(self.columns) or None in row.values():
            row = self._completed(row)
        return {name: value for part in self.parts for name, value in part.state(row).items()}

    def _completed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        held = {name: value for name, value in row.items() if value is not None}
        found = {**self.row(self.new()), **held}
        for part in self.parts:
            lists = [c for c in part.columns if c.dtype.startswith("list")]
            if any(c.name not in held for c in lists):
                found |= {c.name: [] for c in lists}
        return found


def _copied(value: Any) -> Any:
    return value[:] if type(value) is list else value
