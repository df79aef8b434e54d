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
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from feature_repo.assemble.matrix import ItemMatrix, Newborns
from feature_repo.assemble.visitor import History, Scores, Visitor
from feature_repo.clock import DAY_US
from serving.stages.eligibility import EVER
from serving.stages.fitted import NOBODY, Models, fold_in, user_vector
from serving.stages.index import top
from serving.stages.odds import SOURCE, pulls
from serving.stages.steering import PINNED, Mask
from serving.tracing import Brought, Trace
from serving.types import Candidates, Floats, Rows

OVERFETCH = 2  # the index knows nothing of eligibility
NEWEST = np.array([0.36, 0.6, 1.0])  # weights of the newest contacts, of those that came directly before
EVERY = 1e-9  # added to a popularity share, so that an item without views may come last


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

    def deeper(self, source: str, k: int) -> list[int]:
        """As `best`, at most `k`: slower, for who asks why a row was not among them."""
        wide = replace(self._params, k=k)
        return Sources(wide, self._models, self._visitor, self._past, self._matrix, self._eligible).best(
            source
        )

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
    trace: Trace | None = None,
) -> Candidates:
    """At most `params.k` distinct eligible rows, the quotas' order first, then the most viewed.

    Behind them what is `pinned` and no source brought, so that it has a score and values of its own.
    """
    sources = Sources(params, models, visitor, past, matrix, eligible)
    return fill(params.quotas, params.k, sources, pinned, trace)


def fill(
    quotas: Mapping[str, int],
    k: int,
    sources: Sources,
    pinned: Sequence[int] = (),
    trace: Trace | None = None,
) -> Candidates:
    """`k` distinct rows: of each source as many that are not there yet as its quota says, then `popular`.

    And what is `pinned`, whatever `k`.
    """
    found: dict[int, str] = {}  # row -> the source that brought it
    for source, quota in (*quotas.items(), ("popular", k)):
        if len(found) == k:
            break  # a source that is not needed is not asked
        brought, best = 0, sources.best(source)
        if trace is not None:
            trace.brought.append(Brought(source, quota, best, partial(sources.deeper, source)))
        for row in best:
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
