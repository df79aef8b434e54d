"""What the shop's rules ask of one list, and the stages' part in it: factors, caps, pinned slots.

serving/rules makes a Steering of the rules that hold for a request. What it does not allow is left out before
retrieval, so that the list stays full; a factor weighs relevance; caps go with diversity; pins come last, and
show nothing that this shopper may not be shown.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.matrix import ItemMatrix
from serving.explore.offer import Offer
from serving.types import Filter, Floats, Mask, Ranked, Rows

PINNED = "pin"  # the source of a product that no source brought but a rule
FEW = 4096  # rows that a filter leaves: looked at one by one, not met by chance among all


class Pin(NamedTuple):
    """A product for a slot, by the rule of this id."""

    slot: int
    row: int
    rule: str


class Cap(NamedTuple):
    """At most `slots` products of one code; code 0 is unknown, and never too many."""

    codes: npt.NDArray[np.int32]  # (N,)
    slots: int


@dataclass(frozen=True, slots=True, eq=False)
class Steering:
    """All that the rules of one version ask of one list; the defaults ask nothing.

    `rules`: ids of those that hold, the first first. `by`: of each row the place in `rules` of the one whose
    factor it has, -1 for none. `only`: the rule that narrowed the assortment, if any.
    """

    version: int = 0
    rules: tuple[str, ...] = ()
    allowed: Mask | None = None  # (N,)
    few: Rows | None = None  # the rows that `allowed` leaves, where these are at most FEW
    factor: Floats | None = None  # (N,)
    by: npt.NDArray[np.int16] | None = None  # (N,)
    only: str | None = None
    caps: tuple[Cap, ...] = ()
    pins: tuple[Pin, ...] = ()
    offer: Offer | None = None  # of no rule: what the shop wants to be shown at all

    @property
    def asks_nothing(self) -> bool:
        """No rule holds for the list."""
        return not self.rules

    def pinned(self, may: Filter, limit: int) -> list[Pin]:
        """The pins that this list can show; of two for a slot, or of a product for two, the first."""
        if not self.pins:
            return []
        eligible = may.of(np.array([pin.row for pin in self.pins], np.int64)).tolist()
        found: dict[int, Pin] = {}
        rows: set[int] = set()
        for pin, shown in zip(self.pins, eligible, strict=True):
            if shown and pin.slot < limit and pin.slot not in found and pin.row not in rows:
                found[pin.slot] = pin
                rows.add(pin.row)
        return list(found.values())

    def rule_of(self, row: int, pins: Sequence[Pin] = ()) -> str | None:
        """Why a row stands where it stands: its pin, else its factor, else the narrowed assortment."""
        for pin in pins:
            if pin.row == row:
                return pin.rule
        if self.by is not None and (at := int(self.by[row])) >= 0:
            return self.rules[at]
        return self.only


UNSTEERED = Steering()


class Room:
    """Which rows still fit on a shelf whose pinned `rows` are taken: none twice, none beyond its caps."""

    def __init__(self, caps: Sequence[Cap], rows: Iterable[int]) -> None:
        self._caps = caps
        self._rows = set(rows)
        self._used = [Counter(int(cap.codes[row]) for row in self._rows) for cap in caps]

    def has(self, row: int) -> bool:
        """Whether `row` may be added."""
        return row not in self._rows and all(
            (code := int(cap.codes[row])) == 0 or used[code] < cap.slots
            for cap, used in zip(self._caps, self._used, strict=True)
        )

    def take(self, row: int) -> None:
        self._count(row, 1)
        self._rows.add(row)

    def free(self, row: int) -> None:
        """Take `row` off the shelf again."""
        self._count(row, -1)
        self._rows.remove(row)

    def _count(self, row: int, by: int) -> None:
        for cap, used in zip(self._caps, self._used, strict=True):
            used[int(cap.codes[row])] += by


def scaled(score: Floats) -> Floats:
    """Scores (k,) as relevance: 0 for the lowest, 1 for the highest; 1 for all where they are equal."""
    if not len(score) or (low := score.min()) == (high := score.max()):
        return np.ones(len(score), np.float32)
    relevance: Floats = (score - low) / max(high - low, 1e-9)
    return relevance


def ordered(ranked: Ranked, relevance: Floats) -> Ranked:
    """The ranking by `relevance` (k,), equal ones in their order; `score` stays the model's."""
    order = np.argsort(-relevance, kind="stable")
    source = tuple(ranked.source[at] for at in order.tolist())
    return Ranked(ranked.rows[order], ranked.score[order], source, ranked.matrix[order], relevance[order])


def weighed(ranked: Ranked, factor: Floats | None) -> Ranked:
    """The ranking by relevance times `factor` (N,)."""
    if factor is None:
        return ranked
    relevance = scaled(ranked.score) if ranked.relevance is None else ranked.relevance
    return ordered(ranked, relevance * factor[ranked.rows])


def topped_up(matrix: ItemMatrix, may: Filter, room: Room, missing: int) -> list[int]:
    """At most `missing` more rows that `room` has, the most viewed first: caps may bar what was retrieved."""
    found: list[int] = []
    for rows in matrix.bestselling().parts() if missing > 0 else ():
        for row in rows[may.of(rows)].tolist():
            if room.has(row):
                room.take(row)
                found.append(row)
                if len(found) == missing:
                    return found
    return found


def with_pins(rows: Sequence[int], pins: Sequence[Pin], limit: int) -> list[int]:
    """`rows` in order with every pin at its slot; where they do not reach up to it, behind the last."""
    wanted = {pin.slot: pin.row for pin in pins}
    rest, placed = list(rows), list[int]()
    while len(placed) < limit and (rest or wanted):
        at = len(placed) if len(placed) in wanted else None if rest else min(wanted)
        placed.append(rest.pop(0) if at is None else wanted.pop(at))
    return placed
