"""What a fold is: the event it reads, the columns it declares, decayed counts, and the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000

State = dict[str, Any]


class Event(NamedTuple):
    """What folds read of a canonical event; `ts` in microseconds since 1970, UTC."""

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


class Column(NamedTuple):
    """One stored feature: `dtype` is int64, float64, string, list<string> or list<int64>."""

    name: str
    dtype: str
    doc: str


class Fold(Protocol):
    """One entity's features. A row older than `max_age_days` is served as absent."""

    name: ClassVar[str]
    key: ClassVar[str]
    types: ClassVar[frozenset[str]]
    max_age_days: ClassVar[int]
    columns: ClassVar[tuple[Column, ...]]

    def new(self) -> State:
        """The state of an entity without events."""

    def step(self, state: State, event: Event) -> State:
        """The state after `event`; `state` is used up and must not be read again."""

    def row(self, state: State) -> dict[str, Any]:
        """The state as column values, lists copied: what Feast stores."""

    def state(self, row: Mapping[str, Any]) -> State:
        """The inverse of `row`."""


@dataclass(frozen=True)
class Decayed:
    """A count whose weight halves every `half_life_us`.

    A window "of 24 h" that is stored as a plain number is wrong an hour later; a decayed sum stays right when
    it is multiplied by 2 ** -(age / half_life). Late events enter with the weight they would have by now, so
    the order of arrival does not matter.

    >>> day = Decayed("views_24h", DAY_US)
    >>> day.bring(8.0, at=0, now=2 * DAY_US)
    2.0
    """

    column: str
    half_life_us: int

    def bring(self, value: float, at: int, now: int) -> float:
        return value * 2.0 ** (-(now - at) / self.half_life_us)


def add_decayed(state: State, ts: int, weights: Mapping[Decayed, float]) -> None:
    """Bring every counter of `weights` from state["at"] to max(at, ts) and add its weight."""
    at = state["at"]
    later = max(at, ts)
    for counter, weight in weights.items():
        value = state[counter.column]
        if later > at and value:
            value = counter.bring(value, at, later)
        if weight:
            value += counter.bring(weight, ts, later)
        state[counter.column] = value
    state["at"] = later
