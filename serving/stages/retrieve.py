"""Candidates: every source scores the catalogue, quotas blend the sources into K = 120 rows.

Sources, each asked only while the list is not full, in the order of `quotas`, which every shop learns of its
own (pipelines/blend):

    shown     listed to this shopper in this visit, newest page first (the strongest signal on real data)
    reorder   bought by this shopper before `bought_days`, what all buy most often first
    ease      EASE item-item weights summed over the history
    covisit   directional co-visits, the newest contact weighing most
    tower     dot product of the user tower with the item tower (content: works for an item on day one)
    als       factors folded in from the history
    popular   views of the last 7 days
    fresh     items younger than `fresh_days`, by the tower
    attractive  clicked most of what is shown, before a visit's first contact (odds.py)

Newborns, items that came after the fit, are rows behind those of the models: the towers know them by their
vectors, the tables give them 0, and what counts views or days sees them like any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from feature_repo.assemble.matrix import ItemMatrix, Newborns
from feature_repo.assemble.visitor import History, Scores, Visitor
from feature_repo.clock import DAY_US
from feature_repo.events import HISTORY, encode_context
from serving.stages.eligibility import EVER
from serving.stages.index import Index
from serving.stages.odds import SOURCE, pulls
from serving.stages.steering import PINNED, Mask
from serving.stages.tower import UserTower
from serving.types import Candidates, Floats, Rows

OVERFETCH = 2  # the index knows nothing of eligibility
NEWEST = np.array([0.36, 0.6, 1.0])  # weights of the newest contacts, of those that came directly before
EVERY = 1e-9  # added to a popularity share, so that an item without views may come last
NOBODY = Newborns.of((), ())


@dataclass(frozen=True)
class Retrieve:
    """Section `retrieve` of params.yaml, with the quotas and the window that the shop has learned."""

    k: int  # candidates that the ranker sees
    quotas: dict[str, int]  # source -> how many it may bring; one that is not named is not asked
    covisit_decay: float  # weight of the k-th newest contact is decay ** k
    ease_decay: float
    earlier_weight: float  # weight of a contact of an earlier visit
    fresh_days: float
    bought_days: float = EVER  # what was bought in an earlier visit is not shown for as long


@dataclass(frozen=True)
class Models:
    """The retrieval models of one fit; row i of every table is the item ids[i]."""

    ids: list[str]
    item_vectors: Floats  # (N, d), L2-normalised
    index: Index  # over item_vectors, exact or HNSW by the catalogue's size
    tower: UserTower
    covisit: sparse.csr_matrix  # (N, N), row = item of the history, columns = items scored
    next: sparse.csr_matrix  # (N, N), a column of the ranker; as a source it found less
    ease: sparse.csr_matrix  # (N, N)
    together: sparse.csr_matrix  # (N, N), this and the next two are for surfaces that start from products
    carted: sparse.csr_matrix  # (N, N)
    links: sparse.csr_matrix  # (N, N)
    attraction: Floats  # (N,), log of how often an item is clicked against others in its places
    als_items: Floats  # (N, f)


def read_table(file: Path) -> sparse.csr_matrix:
    """An item-item table, float32 (N, N)."""
    return sparse.csr_matrix(sparse.load_npz(file), dtype=np.float32)


class Sources:
    """Every source of one question, each asked when its rows are wanted; `scores` of the whole catalogue."""

    def __init__(
        self,
        params: Retrieve,
        models: Models,
        visitor: Visitor,
        past: History,
        matrix: ItemMatrix,
        eligible: Mask,
    ) -> None:
        self._params, self._models, self._visitor, self._past = params, models, visitor, past
        self._matrix, self._eligible = matrix, eligible

    @cached_property
    def _user(self) -> Floats:
        return user_vector(self._models, self._visitor, self._past, self._matrix.newborns)

    @cached_property
    def scores(self) -> "Scored":
        """What the models make of the catalogue."""
        return Scored(self._params, self._models, self._user, self._past, self._matrix.newborns)

    def best(self, source: str) -> list[int]:
        """Eligible rows that `source` brings, best first, at most k."""
        params, models, matrix, eligible = self._params, self._models, self._matrix, self._eligible
        if source == "shown":
            shown = matrix.rows_of(self._visitor.session["shown_items"])[::-1]
            return [row for row in shown.tolist() if eligible[row]]
        if source == "reorder":
            rows = matrix.rows_of(self._visitor.user["bought_items"])[::-1]
            often = matrix.count("purchases_30d", self._visitor.now, rows)
            return [row for row in rows[np.argsort(-often, kind="stable")].tolist() if eligible[row]]
        if source == "popular":
            return top(matrix.popularity() + EVERY, eligible, params.k)
        if source == SOURCE:
            return top(pulls(models.attraction, len(matrix)), eligible, params.k)
        if source == "tower":
            rows, near = models.index.search(self._user, OVERFETCH * params.k)
            if matrix.own < len(matrix):  # few: all of them beside what the index found
                rows = np.concatenate([rows, np.arange(matrix.own, len(matrix))])
                near = np.concatenate([near, self.scores.tower[matrix.own :]])
                rows = rows[np.argsort(-near, kind="stable")]
            nearest: list[int] = rows[eligible[rows]][: params.k].tolist()
            return nearest
        if source == "als":
            return top(self.scores.als, eligible, params.k)
        if source == "fresh":
            born = np.maximum(matrix.available_from, matrix.activity["first_ts"])
            young = eligible & (born > self._visitor.now - params.fresh_days * DAY_US)
            return top(self.scores.tower + 2.0, young, params.k)
        return top(getattr(self.scores, source), eligible, params.k)


def retrieve(
    params: Retrieve,
    models: Models,
    visitor: Visitor,
    past: History,
    matrix: ItemMatrix,
    eligible: Mask,
    pinned: Sequence[int] = (),
) -> Candidates:
    """At most `params.k` distinct eligible rows, the quotas' order first, then the most viewed.

    Behind them what is `pinned` and no source brought, so that it has a score and values of its own.
    """
    return fill(params.quotas, params.k, Sources(params, models, visitor, past, matrix, eligible), pinned)


def fill(quotas: Mapping[str, int], k: int, sources: Sources, pinned: Sequence[int] = ()) -> Candidates:
    """`k` distinct rows: of each source as many that are not there yet as its quota says, then `popular`.

    And what is `pinned`, whatever `k`.
    """
    found: dict[int, str] = {}  # row -> the source that brought it
    for source, quota in (*quotas.items(), ("popular", k)):
        if len(found) == k:
            break  # a source that is not needed is not asked
        brought = 0
        for row in sources.best(source):
            if brought == quota or len(found) == k:
                break
            if row not in found:
                found[row] = source
                brought += 1
    for row in pinned:
        found.setdefault(row, PINNED)
    rows = np.fromiter(found, np.int64, len(found))
    return Candidates(rows, tuple(found.values()), sources.scores.of(rows, np.arange(len(rows))))


class Scored:
    """What every model makes of the catalogue, float32 (N + m,) each; `user` as user_vector gives it."""

    def __init__(
        self, params: Retrieve, models: Models, user: Floats, past: History, newborns: Newborns = NOBODY
    ) -> None:
        self._models, self._rows = models, past.rows
        self._own, self._items = len(models.ids), len(models.ids) + len(newborns.born)
        newest_first = np.arange(len(past.rows))[::-1]
        place = np.where(past.current, 1.0, params.earlier_weight)
        self.tower: Floats = models.item_vectors @ user
        if len(newborns.born):
            self.tower = np.concatenate([self.tower, newborns.units @ user])
        self.covisit = self._sum(models.covisit, params.covisit_decay**newest_first * place)
        self.ease = self._sum(models.ease, params.ease_decay**newest_first * place)

    @cached_property
    def taste(self) -> Floats:
        """The history folded into the space of the factors: float32 (f,)."""
        return fold_in(self._models.als_items, self._rows[self._rows < self._own])

    @cached_property
    def als(self) -> Floats:
        scores: Floats = np.zeros(self._items, np.float32)
        scores[: self._own] = self._models.als_items @ self.taste
        return scores

    def of(self, rows: Rows, place: npt.NDArray[Any] | None = None) -> Scores:
        """The scores of `rows` (n,), which stand at `place` (n,) of the order of retrieval."""
        own = rows < self._own if self._own < self._items else True
        als = self._models.als_items[rows * own] @ self.taste * own
        return Scores(
            tower=self.tower[rows],
            covisit=self.covisit[rows],
            ease=self.ease[rows],
            covisit_last=self._sum(self._models.covisit, NEWEST[-1:])[rows],
            next=self._sum(self._models.next, NEWEST)[rows],
            als=als,
            place=np.full(len(rows), np.nan) if place is None else place,
        )

    def _sum(self, table: sparse.csr_matrix, weights: npt.NDArray[Any]) -> Floats:
        """sum_k weights[-k] * table[rows[-k]], of the newest contacts: float32 (N + m,)."""
        rows = self._rows[-len(weights) :]
        weights = weights[len(weights) - len(rows) :]
        if self._own < self._items:
            own = rows < self._own
            rows, weights = rows[own], weights[own]
        begin, end = table.indptr[rows], table.indptr[rows + 1]
        spans = [slice(*ends) for ends in zip(begin.tolist(), end.tolist(), strict=True)]
        if not spans:
            return np.zeros(self._items, np.float32)
        items = np.concatenate([table.indices[span] for span in spans])
        values = np.concatenate([table.data[span] for span in spans])
        values = values * np.repeat(weights, end - begin)
        return np.bincount(items, values, self._items).astype(np.float32)


def top(score: npt.NDArray[Any], eligible: Mask, k: int) -> list[int]:
    """Rows of the `k` best eligible scores above 0, best first; equal scores in order of row."""
    rows = np.flatnonzero(eligible & (score > 0))
    values = score[rows]
    if k < len(rows):
        best = np.sort(np.argpartition(values, -k)[-k:])
        rows, values = rows[best], values[best]
    ordered: list[int] = rows[np.argsort(-values, kind="stable")].tolist()
    return ordered


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


def als_scores(item_factors: Floats, rows: Rows) -> Floats:
    """Scores of every item for a history `rows` (h,): float32 (N,)."""
    return item_factors @ fold_in(item_factors, rows)


def fold_in(item_factors: Floats, rows: Rows) -> Floats:
    """A history as binary feedback in the space of the factors: float32 (f,), zeros without a history.

    W_u' (W_u W_u' + I)^-1 1 with the whitened factors W (N, f) of collaborative.als; W times it scores every
    item in the order of the exact fold-in, at the price of a system as small as the history.
    """
    seen = item_factors[rows]  # (h, f)
    weights = np.linalg.solve(seen @ seen.T + np.eye(len(rows), dtype=np.float32), np.ones(len(rows)))
    return np.asarray(seen.T @ weights, np.float32)
