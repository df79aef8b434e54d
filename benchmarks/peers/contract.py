"""What a peer learns from, what it is asked, and what it must do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

Settings = dict[str, Any]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Visits:
    """Visits in order of time, items of a visit in order of contact; visit v is items[starts[v]:starts[v+1]].

    items   int64 (n,) catalogue rows
    starts  int64 (visits + 1,)
    n       items of the catalogue
    """

    items: Rows
    starts: Rows
    n: int

    @classmethod
    def of(cls, visits: Sequence[Sequence[int]], n: int) -> Self:
        """From lists of rows."""
        lengths = [len(visit) for visit in visits]
        items = np.fromiter((row for visit in visits for row in visit), np.int64, sum(lengths))
        return cls(items, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), n)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, visit: int) -> Rows:
        return self.items[self.starts[visit] : self.starts[visit + 1]]

    def matrix(self) -> sparse.csr_matrix:
        """Binary CSR float32 (visits, n)."""
        ones = np.ones(len(self.items), np.float32)
        found = sparse.csr_matrix((ones, self.items, self.starts), shape=(len(self), self.n))
        found.sum_duplicates()
        found.data[:] = 1.0
        return found

    def counts(self) -> npt.NDArray[np.float64]:
        """Visits per item, (n,)."""
        found: npt.NDArray[np.float64] = np.asarray(self.matrix().sum(axis=0), np.float64).ravel()
        return found


class Past(NamedTuple):
    """What a peer is asked with: rows int64 (h,), oldest first, and which of them are of this visit."""

    rows: Rows
    current: Mask

    def seen(self, earlier: bool) -> Rows:
        """With the contacts of earlier visits or without."""
        return self.rows if earlier else self.rows[self.current]


class Peer(ABC):
    """One recommender. Its grids hold every setting that is tried on validation."""

    fits: ClassVar[Mapping[str, Sequence[Any]]] = {}  # settings that need a fit of their own
    asks: ClassVar[Mapping[str, Sequence[Any]]] = {}  # settings of an answer
    random: ClassVar[bool] = False  # whether its fit depends on the seed

    @abstractmethod
    def fit(self, visits: Visits, seed: int, **settings: Any) -> None:
        """Learn from `visits`; `settings` has a value for every key of `fits`."""

    @abstractmethod
    def scores(self, rows: Rows, **settings: Any) -> Scores:
        """Score of every item, (n,), for a history `rows` that is not empty; the higher the better.

        -inf where nothing is known of an item.
        """

    def trained(self, visits: Visits, seed: int) -> Iterator[Settings]:
        """Fit every setting of `fits` in turn; what is yielded is what the peer now stands at."""
        for settings in combinations(self.fits):
            self.fit(visits, seed, **settings)
            yield settings


def combinations(grid: Mapping[str, Sequence[Any]]) -> Iterator[Settings]:
    """Every choice of one value per key.

    >>> list(combinations({"a": (1, 2), "b": (3,)}))
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def best(scores: Scores, popular: npt.NDArray[np.float64], eligible: Mask, k: int) -> Rows:
    """The `k` best eligible rows; equal scores, and unknown ones, in order of popularity, then of row.

    >>> best(np.array([0.0, 2.0, 0.0]), np.array([1.0, 1.0, 5.0]), np.ones(3, bool), 2).tolist()
    [1, 2]
    """
    rows = np.flatnonzero(eligible)
    found = scores[rows]
    if k < len(rows):
        least = np.partition(found, -k)[-k]
        kept = found >= least
        rows, found = rows[kept], found[kept]
    order = np.lexsort((rows, -popular[rows], -found))
    return rows[order[:k]]
