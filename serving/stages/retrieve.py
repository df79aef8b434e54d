"""Candidates: every source brings its best, quotas blend them into K = 120 rows; only these are scored.

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

What a question costs does not grow with the catalogue (benchmarks/latency.py): an index finds the nearest
vectors, tables are summed where they have entries, orders are kept with the snapshot, filters look at what a
source brings and ask for more where too few may be shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from feature_repo.assemble.matrix import ItemMatrix, Newborns
from feature_repo.assemble.orders import Order, best
from feature_repo.assemble.visitor import History, Scores, Visitor
from feature_repo.clock import DAY_US
from serving.stages.eligibility import EVER
from serving.stages.fitted import NOBODY, Addends, Models, fold_in, user_vector
from serving.stages.index import top
from serving.stages.odds import SOURCE
from serving.stages.steering import FEW, PINNED
from serving.tracing import Brought, Trace
from serving.types import Candidates, Filter, Floats, Rows

NEWEST = np.array([0.36, 0.6, 1.0])  # weights of the newest contacts, of those that came directly before


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
    """Every source of one question, each asked when its rows are wanted; `may`: what it may bring."""

    def __init__(
        self,
        params: Retrieve,
        models: Models,
        visitor: Visitor,
        past: History,
        matrix: ItemMatrix,
        may: Filter,
    ) -> None:
        self._params, self._models, self._visitor, self._past = params, models, visitor, past
        self._matrix, self._may = matrix, may

    @cached_property
    def scores(self) -> "Scored":
        """What the models make of any rows."""
        models, past, matrix = self._models, self._past, self._matrix
        user = user_vector(models, self._visitor, past, matrix.newborns)
        return Scored(self._params, models, user, past, matrix.newborns)

    def deeper(self, source: str, k: int) -> list[int]:
        """As `best`, at most `k`: slower, for who asks why a row was not among them."""
        wide = replace(self._params, k=k)
        asked = self._models, self._visitor, self._past, self._matrix, self._may
        return Sources(wide, *asked).best(source)

    def best(self, source: str) -> list[int]:
        """Rows that may be shown and that `source` brings, best first, at most k."""
        params, matrix, may, k = self._params, self._matrix, self._may, self._params.k
        if source == "shown":
            shown = matrix.rows_of(self._visitor.session["shown_items"])[::-1]
            return shown[may.of(shown)].tolist()
        if source == "reorder":
            rows = matrix.rows_of(self._visitor.user["bought_items"])[::-1]
            often = matrix.count("purchases_30d", self._visitor.now, rows)
            rows = rows[np.argsort(-often, kind="stable")]
            return rows[may.of(rows)].tolist()
        if source == "popular":
            return foremost(matrix.bestselling(), matrix.popularity(), may, k)
        if source == SOURCE:
            return foremost(self._models.attractive, self._models.attraction, may, k)
        if source in ("tower", "als"):
            return self._nearest(source)
        if source == "fresh":
            young = matrix.younger(int(self._visitor.now - params.fresh_days * DAY_US))
            if len(young) > FEW:  # then the newest, or the price would grow with the catalogue
                young = np.sort(young[best(matrix.born(young), FEW)])
            return top(young, self.scores.tower(young) + 2.0, may, k)
        return top(*self.scores.summed(source), may, k)

    def _nearest(self, source: str) -> list[int]:
        """By the tower those nearest to the shopper; by the factors those with a score above 0."""
        models, matrix, may, k, scores = self._models, self._matrix, self._may, self._params.k, self.scores
        if may.within is not None:
            near = scores.tower(may.within) + 2.0 if source == "tower" else scores.als(may.within)
            return top(may.within, near, may, k)
        if source == "als":
            if not scores.taste.any():
                return []
            rows, near = models.factors.search(scores.taste, k, may)
            return rows[near > 0].tolist()
        rows, near = models.index.search(scores.user, k, may)
        if matrix.own < len(matrix):  # few: all of them beside what the index found
            late = np.arange(matrix.own, len(matrix))
            late = late[may.of(late)]
            near = np.concatenate([near, scores.tower(late)])
            rows = np.concatenate([rows, late])[np.argsort(-near, kind="stable")][:k]
        return rows.tolist()


def foremost(order: Order, values: npt.NDArray[Any], may: Filter, k: int) -> list[int]:
    """The first `k` rows of `order`, which is by `values` (N,), that may be shown."""
    if may.within is not None:
        rows = may.within[may.of(may.within)]
        rows = rows[rows < len(values)]
        return rows[best(values[rows], k)].tolist()
    found: list[int] = []
    for rows in order.parts():
        found += rows[may.of(rows)].tolist()
        if len(found) >= k:
            break
    return found[:k]


def retrieve(
    params: Retrieve,
    models: Models,
    visitor: Visitor,
    past: History,
    matrix: ItemMatrix,
    may: Filter,
    pinned: Sequence[int] = (),
    trace: Trace | None = None,
) -> Candidates:
    """At most `params.k` distinct rows that may be shown, the quotas' order first, then the most viewed.

    Behind them what is `pinned` and no source brought, so that it has a score and values of its own.
    """
    sources = Sources(params, models, visitor, past, matrix, may)
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
    """What every model makes of any rows (n,); `user` as user_vector gives it."""

    def __init__(
        self, params: Retrieve, models: Models, user: Floats, past: History, newborns: Newborns = NOBODY
    ) -> None:
        self._params, self._models, self._past, self._newborns = params, models, past, newborns
        self.user = user

    def tower(self, rows: Rows) -> Floats:
        return self._models.units(rows, self._newborns) @ self.user

    @cached_property
    def taste(self) -> Floats:
        """The history folded into the space of the factors: float32 (f,)."""
        rows = self._past.rows
        return fold_in(self._models.als_items, rows[rows < len(self._models.ids)])

    def als(self, rows: Rows) -> Floats:
        factors = self._models.als_items
        if not len(self._newborns.born):
            return np.asarray(factors[rows] @ self.taste)
        own = rows < len(factors)
        return np.asarray(factors[rows * own] @ self.taste * own)

    @cached_property
    def covisit(self) -> Addends:
        """Co-visits, the newest contact weighing most."""
        return self._decayed(self._models.covisit, self._params.covisit_decay)

    @cached_property
    def ease(self) -> Addends:
        """Item-item weights over the history."""
        return self._decayed(self._models.ease, self._params.ease_decay)

    def summed(self, table: str) -> tuple[Rows, Floats]:
        """Ascending rows that stand beside the history in `covisit` or `ease`, and their scores."""
        rows, sums = getattr(self, table).summed()
        return rows, sums.astype(np.float32)

    def _decayed(self, table: sparse.csr_matrix, decay: float) -> Addends:
        place = np.where(self._past.current, 1.0, self._params.earlier_weight)
        return Addends.of(table, self._past.rows, decay ** np.arange(len(place))[::-1] * place)

    def of(self, rows: Rows, place: npt.NDArray[Any] | None = None) -> Scores:
        """The scores of distinct `rows` (n,), which stand at `place` (n,) of the order of retrieval."""
        models, past = self._models, self._past.rows
        return Scores(
            tower=self.tower(rows),
            covisit=self.covisit.at(rows),
            ease=self.ease.at(rows),
            covisit_last=Addends.of(models.covisit, past, NEWEST[-1:]).at(rows),
            next=Addends.of(models.next, past, NEWEST).at(rows),
            als=self.als(rows),
            place=np.full(len(rows), np.nan) if place is None else place,
        )
