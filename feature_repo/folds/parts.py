"""The kinds of parts that folds are made of. A new feature is one more line in feature_repo.features.stored.

    Counts       counts whose weight halves with time         views, carts, purchases, exposure, intent
    Tally        plain counts of a visit                      views, carts
    First, Last  the earliest and the newest instant          start of the visit, last contact
    Recent       the last distinct items with their times     contacts, purchases
    Visits       the visits of a shopper                      days away, known or new
    Cart         what lies in the cart now
    Shown        what was listed to the shopper, and where

Late events: sums, counts and instants come out the same in whatever order events arrive; lists are kept in
order of event time, and what an event would have changed had it come in time, it changes now. Pages alone are
numbered in the order of arrival.
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from feature_repo.clock import DAY_US
from feature_repo.events import KINDS
from feature_repo.folds.fold import Column, Event, Part, Reading, State

POSITION_EXPONENT = 0.5  # examination of position p ~ p ** -0.5: CTR .93 % at 1 and .30 % at 10 on merch
VISITS_KEPT = 5


@dataclass(frozen=True)
class Decayed:
    """A count whose weight halves every `half_life_us`; `weights` per event type, others do not count.

    A window "of 24 h" that is stored as a plain number is wrong an hour later; a decayed sum stays right
    when it is multiplied by 2 ** -(age / half_life). `examined` weighs an event by the chance that its
    position was looked at. `column` makes it a column of the ranker.

    >>> day = Decayed("views_24h", DAY_US, {"product_viewed": 1.0}, "product views")
    >>> day.bring(8.0, at=0, now=2 * DAY_US)
    2.0
    """

    name: str
    half_life_us: int
    weights: Mapping[str, float]
    doc: str
    examined: bool = False
    column: str | None = None

    def bring(self, value: float, at: int, now: int) -> float:
        return value * 2.0 ** (-(now - at) / self.half_life_us)

    def weight(self, kind: str, position: int | None) -> float:
        """What one event adds: 1 at an unknown position.

        >>> Decayed("seen", DAY_US, {"impression": 1.0}, "", examined=True).weight("impression", 4)
        0.5
        """
        weight = self.weights.get(kind, 0.0)
        return weight * position**-POSITION_EXPONENT if self.examined and position else weight


class Counts(Part):
    """Decayed counts, all standing at the instant `at`: the newest event that any of them counts."""

    def __init__(self, *counters: Decayed, of_items: bool = False) -> None:
        self.counters = counters
        self.types = frozenset().union(*(counter.weights for counter in counters))
        self.columns = (
            Column("at", "int64", "us", "instant at which the decayed counts stand"),
            *(
                Column(c.name, "float64", "events", f"{c.doc}; weight halves every {_span(c.half_life_us)}")
                for c in counters
            ),
        )
        read = _item_count if of_items else _count
        self.readings = tuple(
            Reading(c.column, "events", c.doc, (c.name, "at"), read(c)) for c in counters if c.column
        )

    def step(self, state: State, event: Event) -> None:
        ts, at = event.ts, state["at"]
        later = max(at, ts)
        for counter in self.counters:
            value = state[counter.name]
            if value and later > at:
                value = counter.bring(value, at, later)
            if weight := counter.weight(event.type, event.position):
                value += weight if ts == later else counter.bring(weight, ts, later)
            state[counter.name] = value
        state["at"] = later


def _count(counter: Decayed) -> Any:
    return lambda row, visitor: counter.bring(row[counter.name], row["at"], visitor.now)


def _item_count(counter: Decayed) -> Any:
    return lambda matrix, now, rows: matrix.count(counter.name, now, rows)


def _span(us: int) -> str:
    """
    >>> _span(DAY_US), _span(30 * DAY_US), _span(600_000_000)
    ('day', '30 days', '10 minutes')
    """
    if us % DAY_US:
        return f"{us // 60_000_000} minutes"
    return "day" if us == DAY_US else f"{us // DAY_US} days"


class Tally(Part):
    """How many events of `kind` there were."""

    def __init__(self, name: str, kind: str, doc: str, column: str | None = None) -> None:
        self.types = frozenset((kind,))
        self.columns = (Column(name, "int64", "events", doc),)
        if column:
            self.readings = (Reading(column, "events", doc, (name,), lambda row, _: row[name]),)
        self._name = name

    def step(self, state: State, event: Event) -> None:
        state[self._name] += 1


class First(Part):
    """The earliest instant of `types`; `column` reads the seconds since then."""

    def __init__(self, name: str, types: Collection[str], doc: str, column: str | None = None) -> None:
        self.types, self._name = frozenset(types), name
        self.columns = (Column(name, "int64", "us", doc),)
        if column:
            self.readings = (Reading(column, "s", f"since the {doc}", (name,), _since(name)),)

    def step(self, state: State, event: Event) -> None:
        if not state[self._name] or event.ts < state[self._name]:
            state[self._name] = event.ts


class Last(First):
    """The newest instant of `types`; `column` reads the seconds since then."""

    def step(self, state: State, event: Event) -> None:
        state[self._name] = max(state[self._name], event.ts)


def _since(name: str) -> Any:
    return lambda row, visitor: (visitor.now - row[name]) / 1e6 if row[name] else np.nan


class Recent(Part):
    """The last `limit` distinct items in order of time: <prefix>_items, _ts and, `kinds` given, _kinds."""

    def __init__(
        self, prefix: str, types: Collection[str], limit: int, doc: str, kinds: bool = False
    ) -> None:
        self.types, self.limit = frozenset(types), limit
        self.columns = (
            Column(f"{prefix}_items", "list<string>", "item_id", f"last {limit} distinct items {doc}"),
            Column(f"{prefix}_ts", "list<int64>", "us", "newest instant of each"),
        )
        if kinds:
            doc = "strongest contact with each: 1 view, 2 cart, 3 purchase"
            self.columns += (Column(f"{prefix}_kinds", "list<int64>", "code", doc),)
        self._names = tuple(c.name for c in self.columns)

    def step(self, state: State, event: Event) -> None:
        lists = [state[name] for name in self._names]
        put(lists, [event.item_id, event.ts, KINDS.get(event.type, 0)][: len(lists)], self.limit)


def put(lists: list[list[Any]], entry: list[Any], limit: int) -> None:
    """Insert (item, ts, kind) into parallel lists that are in order of ts and hold an item once.

    An item that is there keeps its newest ts and its greatest kind; the oldest leaves a full list.

    >>> items, stamps = ["a", "b"], [1, 5]
    >>> put([items, stamps], ["a", 3], 2); put([items, stamps], ["c", 2], 2); items, stamps
    (['a', 'b'], [3, 5])
    """
    items, stamps = lists[0], lists[1]
    item, *values = entry
    if item in items:
        at = items.index(item)
        values = [max(value, held[at]) for value, held in zip(values, lists[1:], strict=True)]
        for held in lists:
            del held[at]
    elif len(items) == limit:
        if values[0] < stamps[0]:
            return
        for held in lists:
            del held[0]
    at = bisect_right(stamps, values[0])
    for held, value in zip(lists, (item, *values), strict=True):
        held.insert(at, value)


class Visits(Part):
    """The visits in which the shopper touched a product."""

    columns = (
        Column("sessions", "int64", "visits", "visits with product contact so far, this one included"),
        Column("visit_ids", "list<string>", "session_id", f"last {VISITS_KEPT} visits"),
        Column("visit_ts", "list<int64>", "us", "last contact of each"),
    )

    def __init__(self, types: Collection[str], days_away: str) -> None:
        self.types = frozenset(types)
        of = ("sessions", "visit_ids", "visit_ts")
        doc = "since the last contact of an earlier visit"
        self.readings = (Reading(days_away, "days", doc, of, _days_away),)

    def step(self, state: State, event: Event) -> None:
        ids, stamps = state["visit_ids"], state["visit_ts"]
        if event.session_id not in ids:
            if len(ids) == VISITS_KEPT and event.ts < stamps[0]:
                return  # older than all that is remembered: it may have been counted
            state["sessions"] += 1
        put([ids, stamps], [event.session_id, event.ts], VISITS_KEPT)


def _days_away(row: Mapping[str, Any], visitor: Any) -> float:
    visits = zip(row["visit_ids"], row["visit_ts"], strict=True)
    before = max((ts for visit, ts in visits if visit != visitor.session_id), default=0)
    return (visitor.now - before) / DAY_US if before else np.nan


def been_before(row: Mapping[str, Any], session_id: str | None) -> bool:
    """True for the row of a shopper who touched a product in another visit than `session_id`."""
    return bool(row["sessions"] > (session_id in row["visit_ids"]))


class Cart(Part):
    """What lies in the cart. Of two events on one item the later one decides, whichever arrives first."""

    types = frozenset(("add_to_cart", "remove_from_cart", "purchase_completed"))

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.columns = (
            Column("cart_items", "list<string>", "item_id", "in the cart now, newest last"),
            Column("cart_ts", "list<int64>", "us", "instant at which each was put in"),
            Column("left_items", "list<string>", "item_id", "taken out or bought, newest last"),
            Column("left_ts", "list<int64>", "us", "instant at which each left the cart"),
        )

    def step(self, state: State, event: Event) -> None:
        inside = [state["cart_items"], state["cart_ts"]]
        outside = [state["left_items"], state["left_ts"]]
        target, other = (inside, outside) if event.type == "add_to_cart" else (outside, inside)
        if event.item_id in other[0]:
            at = other[0].index(event.item_id)
            if other[1][at] > event.ts:
                return
            del other[0][at], other[1][at]
        put(target, [event.item_id, event.ts], self._limit)
