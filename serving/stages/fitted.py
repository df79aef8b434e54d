"""The retrieval models of one fit, and where a shopper stands among their items."""

import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from feature_repo.assemble.matrix import Newborns
from feature_repo.assemble.orders import Order
from feature_repo.assemble.visitor import History, Visitor
from feature_repo.events import HISTORY
from feature_repo.features.context import encode_context
from serving.stages.index import Index
from serving.stages.tower import UserTower
from serving.types import Floats, Rows

NOBODY = Newborns.of((), ())


@dataclass(frozen=True)
class Models:
    """The retrieval models of one fit; row i of every table is the item ids[i]."""

    ids: list[str]
    item_vectors: Floats  # (N, d), L2-normalised
    index: Index  # over item_vectors, exact or not by the catalogue's size
    tower: UserTower
    covisit: sparse.csr_matrix  # (N, N), row = item of the history, columns = items scored
    next: sparse.csr_matrix  # (N, N), a column of the ranker; as a source it found less
    ease: sparse.csr_matrix  # (N, N)
    together: sparse.csr_matrix  # (N, N), this and the next two are for surfaces that start from products
    carted: sparse.csr_matrix  # (N, N)
    links: sparse.csr_matrix  # (N, N)
    attraction: Floats  # (N,), log of how often an item is clicked against others in its places
    als_items: Floats  # (N, f)
    factors: Index  # over als_items

    @cached_property
    def attractive(self) -> Order:
        """Items that attract more than an average one does, the most first."""
        rows = np.flatnonzero(self.attraction > 0)
        return Order(rows, self.attraction[rows])

    def units(self, rows: Rows, newborns: Newborns = NOBODY) -> Floats:
        """Vectors of the models' own rows and of those that came after the fit, L2-normalised: (n, d)."""
        own = self.item_vectors
        if not len(newborns.born):
            return own[rows]
        found, late = own[np.minimum(rows, len(own) - 1)], rows >= len(own)
        found[late] = newborns.units[rows[late] - len(own)]
        return found


_place = threading.local()  # .of int32: of each catalogue row its place in what a thread adds up just now


def placed(rows: Rows | npt.NDArray[np.int32], size: int) -> npt.NDArray[np.int32]:
    """int32 (>= size,) in which every one of `rows`, below `size`, has its last place among them.

    What other rows have is of earlier calls: nothing of the size of the catalogue is cleared or made anew.
    """
    if getattr(_place, "of", _NONE).size < size:
        _place.of = np.zeros(size, np.int32)
    of: npt.NDArray[np.int32] = _place.of
    of[rows] = np.arange(len(rows), dtype=np.int32)
    return of


_NONE, _NOTHING = np.zeros(0, np.int32), np.zeros(0)


class Addends(NamedTuple):
    """What rows of an item-item table (N, N) add to items: `items` (e,), some of them several times."""

    items: npt.NDArray[np.int32]
    values: npt.NDArray[Any]  # (e,)
    size: int  # N

    @classmethod
    def of(cls, table: sparse.csr_matrix, rows: Rows, weights: npt.NDArray[Any]) -> "Addends":
        """weights[-k] * table[rows[-k]] of the newest rows; those beyond the table add nothing."""
        size = table.shape[0]
        rows = rows[-len(weights) :]
        weights = weights[len(weights) - len(rows) :]
        own = rows < size
        rows, weights = rows[own], weights[own]
        if not len(rows):
            return cls(_NONE, _NOTHING, size)
        begin, end = table.indptr[rows], table.indptr[rows + 1]
        if len(rows) == 1:
            span = slice(begin[0], end[0])
            return cls(table.indices[span], table.data[span] * weights[0], size)
        many = end - begin
        ends = np.cumsum(many)
        entries = np.arange(many.sum()) + np.repeat(begin - ends + many, many)
        return cls(table.indices[entries], table.data[entries] * np.repeat(weights, many), size)

    def summed(self) -> tuple[Rows, npt.NDArray[Any]]:
        """Ascending rows that anything was added to, int64 (r,), and their sums, float64 (r,)."""
        if not len(self.items):
            return np.zeros(0, np.int64), np.zeros(0)
        last = placed(self.items, self.size)[self.items] == np.arange(len(self.items))
        rows = np.sort(self.items[last])
        return rows.astype(np.int64), np.bincount(placed(rows, self.size)[self.items], self.values, len(rows))

    def at(self, rows: Rows) -> Floats:
        """The sums of distinct `rows` (n,): float32 (n,), 0 where nothing was added."""
        n = len(rows)
        if not n or not len(self.items):
            return np.zeros(n, np.float32)
        place = np.minimum(placed(rows, max(self.size, int(rows.max()) + 1))[self.items], n - 1)
        place[rows[place] != self.items] = n
        return np.bincount(place, self.values, n + 1)[:n].astype(np.float32)


def read_table(file: Path) -> sparse.csr_matrix:
    """An item-item table, float32 (N, N)."""
    return sparse.csr_matrix(sparse.load_npz(file), dtype=np.float32)


def user_vector(models: Models, visitor: Visitor, past: History, newborns: Newborns = NOBODY) -> Floats:
    """The shopper in the space of the items: float32 (d,), from at most the 20 newest contacts."""
    rows, ages, kinds = past.rows[-HISTORY:], past.ages[-HISTORY:], past.kinds[-HISTORY:]
    start = HISTORY - len(rows)
    items = np.zeros((1, HISTORY), np.int64)
    stamps = np.zeros((1, HISTORY), np.float32)
    contacts = np.zeros((1, HISTORY), np.int64)
    items[0, start:], stamps[0, start:], contacts[0, start:] = rows + 1, ages, kinds
    context = np.array([encode_context(visitor.device, visitor.channel, visitor.country)], np.int64)
    unknown = np.zeros((1, HISTORY, models.item_vectors.shape[1]), np.float32)
    if len(newborns.born):
        late = np.flatnonzero(rows >= len(models.ids))
        unknown[0, start + late] = newborns.vectors[rows[late] - len(models.ids)]
    return models.tower.user_vector(items, stamps, contacts, context, unknown)


def fold_in(item_factors: Floats, rows: Rows) -> Floats:
    """A history as binary feedback in the space of the factors: float32 (f,), zeros without a history.

    W_u' (W_u W_u' + I)^-1 1 with the whitened factors W (N, f) of collaborative.als; W times it scores every
    item in the order of the exact fold-in, at the price of a system as small as the history.
    """
    if not len(rows):
        return np.zeros(item_factors.shape[1], np.float32)
    seen = item_factors[rows]  # (h, f)
    weights = np.linalg.solve(seen @ seen.T + np.eye(len(rows), dtype=np.float32), np.ones(len(rows)))
    return np.asarray(seen.T @ weights, np.float32)
