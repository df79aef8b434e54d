"""Quotas of the sources, learned greedily by recall of the candidates. Pure arrays, no models.

A query's candidates are numbered 0, 1, ... in it alone; a number past them stands for an empty place.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.protocol.metrics import Doubles

Flags = npt.NDArray[np.bool_]
LAST = "popular"  # brings what the quotas leave empty, as serving.stages.retrieve.fill has it


class Asked(NamedTuple):
    """What every source would bring for one query, were nothing barred that was bought in earlier visits."""

    brought: dict[str, list[int]]  # source -> catalogue rows, best first
    wanted: frozenset[int]  # rows; those without a row of the catalogue count in `many` alone
    many: int  # items wanted
    bought: dict[int, float]  # row -> days since it was bought


@dataclass(frozen=True)
class Brought:
    """The same of all queries.

    places source -> int64 (q, n), flat index into `wanted` of each place
    wanted bool (q, u + 1), the last column for empty places · many float64 (q,) · days float64 (q, u + 1)
    """

    places: dict[str, npt.NDArray[np.int64]]
    wanted: Flags
    many: Doubles
    days: Doubles  # since it was bought, infinite where it was not

    @classmethod
    def of(cls, asked: Sequence[Asked], sources: Iterable[str]) -> "Brought":
        """Raises KeyError for a source that a query was not asked of."""
        names = tuple(sources)
        number = [_numbered([one.brought[name] for name in names]) for one in asked]
        width = max(map(len, number), default=0) + 1
        longest = max((len(rows) for one in asked for rows in one.brought.values()), default=0)
        places = {name: np.full((len(asked), longest), width - 1, np.int64) for name in names}
        wanted = np.zeros((len(asked), width), np.bool_)
        days = np.full((len(asked), width), np.inf)
        for q, (one, of) in enumerate(zip(asked, number, strict=True)):
            for name in names:
                rows = one.brought[name]
                places[name][q, : len(rows)] = [of[row] for row in rows]
            wanted[q, [of[row] for row in one.wanted if row in of]] = True
            for row, since in one.bought.items():
                if row in of:
                    days[q, of[row]] = since
        for flat in places.values():
            flat += np.arange(len(asked))[:, None] * width
        return cls(places, wanted, np.array([one.many for one in asked], np.float64), days)

    def barred(self, window: float) -> Flags:
        """What no source may bring where purchases of `window` days are not shown; empty places always."""
        barred = self.days < window
        barred[:, -1] = True
        return barred

    def next(self, source: str, taken: Flags, most: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Flat indices of the first `most` (q,) places of `source` in each query that are not `taken`."""
        at = self.places[source]
        free = ~taken.ravel()[at]
        return at[free & (np.cumsum(free, axis=1, dtype=np.int32) <= most[:, None])]

    def gain(self, found: npt.NDArray[np.int64]) -> float:
        """Sum over queries of the share of the wanted items that `found` (flat indices) holds."""
        query = found[self.wanted.ravel()[found]] // self.wanted.shape[1]
        return float((1 / self.many)[query].sum())


class Filled(NamedTuple):
    """The candidates of all queries under some quotas."""

    recall: Doubles  # (q,)
    candidates: dict[str, int]  # source -> how many it brought
    hits: dict[str, int]  # how many of these were wanted


def filled(brought: Brought, quotas: Mapping[str, int], k: int, barred: Flags) -> Filled:
    """What serving would retrieve: each source in turn brings as many new items as its quota says."""
    taken, queries = barred.copy(), len(barred)
    left = np.full(queries, k)
    got, candidates, hits = np.zeros(queries), dict.fromkeys(quotas, 0), dict.fromkeys(quotas, 0)
    for source, quota in (*quotas.items(), (LAST, k)):
        found = brought.next(source, taken, np.minimum(left, quota))
        taken.ravel()[found] = True
        query, wanted = found // taken.shape[1], brought.wanted.ravel()[found]
        left = left - np.bincount(query, minlength=queries)
        got += np.bincount(query, weights=wanted, minlength=queries)
        candidates[source] = candidates.get(source, 0) + len(found)
        hits[source] = hits.get(source, 0) + int(wanted.sum())
    return Filled(got / brought.many, candidates, hits)


def greedy(
    brought: Brought,
    k: int,
    block: int,
    floors: Mapping[str, int],
    barred: Flags,
    without: Set[str] = frozenset(),
) -> dict[str, int]:
    """Quotas, in the order in which their sources were first chosen; sources `without` get none.

    Every query keeps what is taken; the next `block` places go to the source whose next items add most
    recall, summed over the queries; equal ones in the order of `brought.places`. Where no block adds any, one
    of twice as many places is tried, and so on; it ends where every list is full or none adds anything.
    `floors` are places that a source has in any case.
    """
    names = [name for name in brought.places if name not in without]
    room = k - sum(floors.values())
    taken, left = barred.copy(), np.full(len(barred), room)
    quotas: dict[str, int] = {}
    places = block
    while True:
        best, most, chosen = "", 0.0, np.empty(0, np.int64)
        for name in names:
            more = min(places, room - quotas.get(name, 0))
            found = brought.next(name, taken, np.minimum(left, more))
            if (gain := brought.gain(found)) > most + 1e-9:
                best, most, chosen = name, gain, found
        if not best:
            if places >= room:
                return with_floors(quotas, floors, k)
            places *= 2
            continue
        quotas[best] = min(quotas.get(best, 0) + places, room)
        places = block
        taken.ravel()[chosen] = True
        left = left - np.bincount(chosen // taken.shape[1], minlength=len(left))


def with_floors(quotas: Mapping[str, int], floors: Mapping[str, int], k: int) -> dict[str, int]:
    """Each source of `floors` has at least so many places, and stands where they are surely free.

    >>> with_floors({"ease": 60, "als": 50, "tower": 40}, {"fresh": 5}, 120)
    {'ease': 60, 'als': 50, 'fresh': 5, 'tower': 40}
    """
    found = dict(quotas)
    for name, floor in floors.items():
        if found.get(name, 0) >= floor:
            continue
        found.pop(name, None)
        order, before = list(found.items()), np.cumsum([0, *found.values()])
        at = int(np.flatnonzero(before + floor <= k)[-1])
        found = dict([*order[:at], (name, floor), *order[at:]])
    return found


def learned(
    brought: Brought, k: int, block: int, floors: Mapping[str, int], least: float, barred: Flags
) -> dict[str, int]:
    """As `greedy`, without the sources that bring less than the share `least` of all hits."""
    quotas = greedy(brought, k, block, floors, barred)
    hits = filled(brought, quotas, k, barred).hits
    idle = {name for name in brought.places if hits.get(name, 0) < least * sum(hits.values())}
    return greedy(brought, k, block, floors, barred, idle) if idle & quotas.keys() - floors.keys() else quotas


def _numbered(lists: Iterable[Sequence[int]]) -> dict[Any, int]:
    """row -> its number in the order of first appearance."""
    number: dict[Any, int] = {}
    for rows in lists:
        for row in rows:
            number.setdefault(row, len(number))
    return number
