"""The ranker's columns of one visitor and many items: what retrieval scored, affinity, price, exposure, and
where each candidate stands among the others.

Nothing here is stored: each is computed when it is asked for, from stored rows that were brought to `now`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.matrix import Doubles, ItemMatrix, Rows
from feature_repo.assemble.visitor import History, Scores, Visitor
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.stored import ITEM_ACTIVITY
from feature_repo.folds.fold import Reading

ITEM: tuple[Reading, ...] = (*ITEM_CATALOGUE.readings, *ITEM_ACTIVITY.readings)
_ITEM = {reading.column: reading for reading in ITEM}
DAY_S = 86_400.0
RECENCY = 0.8  # weight of the k-th newest contact: RECENCY ** k


@dataclass(frozen=True)
class Meeting:
    """One visitor and the candidates `rows` (n,); what several columns share is computed once."""

    visitor: Visitor
    past: History
    matrix: ItemMatrix
    rows: Rows
    scores: Scores

    @cached_property
    def items(self) -> Mapping[str, Doubles]:
        """Every column of the items alone, (n,) each."""
        now = self.visitor.now
        return {name: reading.read(self.matrix, now, self.rows) for name, reading in _ITEM.items()}

    @cached_property
    def at(self) -> Mapping[int, int]:
        """Catalogue row -> position among the candidates."""
        return {row: i for i, row in enumerate(self.rows.tolist())}

    @cached_property
    def recency(self) -> Doubles:
        """Weights of the contacts (h,), the newest weighs 1."""
        return np.asarray(RECENCY ** np.arange(len(self.past.rows))[::-1], np.float64)

    def affinity(self, codes: npt.NDArray[np.int32]) -> Doubles:
        """Share of the recency-weighted contacts that have the candidate's code, (n,); 0 where unknown."""
        if not len(self.recency):
            return np.zeros(len(self.rows))
        weight = np.bincount(codes[self.past.rows], self.recency)  # by code, up to the greatest seen
        weight[0] = 0.0
        mine = codes[self.rows]
        share = np.where(mine < len(weight), weight[np.minimum(mine, len(weight) - 1)], 0.0)
        return np.asarray(share / self.recency.sum())

    @cached_property
    def category_last(self) -> Doubles:
        mine, last = self.matrix.category[self.rows], self.matrix.category[self.past.rows[-1:]]
        return np.asarray((mine > 0) & (mine == last if len(last) else False), np.float64)

    @cached_property
    def days_since(self) -> Doubles:
        """Since the visitor last touched the candidate, (n,); NaN where that is not remembered."""
        days = np.full(len(self.rows), np.nan)
        for row, age in zip(self.past.rows.tolist(), self.past.ages.tolist(), strict=True):
            if (i := self.at.get(row)) is not None:
                days[i] = age / DAY_S
        return days

    @cached_property
    def price_ratio(self) -> Doubles:
        seen = self.matrix.price_log[self.past.rows]
        seen = seen[~np.isnan(seen)]
        if not len(seen):
            return np.full(len(self.rows), np.nan)
        return np.asarray(self.matrix.price_log[self.rows] - seen.mean())

    @cached_property
    def shown(self) -> tuple[Doubles, Doubles]:
        """Per candidate (n,): pages since it was listed (0 = the newest), its position."""
        session: Mapping[str, Any] = self.visitor.session
        ago, position = np.full(len(self.rows), np.nan), np.full(len(self.rows), np.nan)
        listed = zip(*(session[name] for name in _SHOWN[:3]), strict=True)
        for item, page, place in listed:
            if (i := self.at.get(self.matrix.row.get(item, -1))) is not None:
                ago[i], position[i] = session["pages"] - page, place or np.nan
        return ago, position


_CONTACTS = ("recent_items", "contact_items")
_SHOWN = ("shown_items", "shown_pages", "shown_positions", "pages")
_CATEGORY, _BRAND = (*_CONTACTS, "category_path"), (*_CONTACTS, "brand")
CROSSES: tuple[Reading, ...] = (
    Reading("tower_score", "cosine", "user tower . item tower", _CONTACTS, lambda m: m.scores.tower),
    Reading("covisit_score", "weight", "co-visits with the history", _CONTACTS, lambda m: m.scores.covisit),
    Reading("ease_score", "weight", "EASE over the history", _CONTACTS, lambda m: m.scores.ease),
    Reading(
        "covisit_last", "weight", "co-visits of the newest item", _CONTACTS, lambda m: m.scores.covisit_last
    ),
    Reading("next_score", "weight", "directly after the newest items", _CONTACTS, lambda m: m.scores.next),
    Reading("retrieval_place", "place", "in the order of retrieval", _CONTACTS, lambda m: m.scores.place),
    Reading(
        "category_affinity",
        "share",
        "of the recency-weighted contacts in the item's category",
        _CATEGORY,
        lambda m: m.affinity(m.matrix.category),
    ),
    Reading(
        "category_last",
        "0 or 1",
        "the newest contact is of the item's category",
        _CATEGORY,
        lambda m: m.category_last,
    ),
    Reading(
        "brand_affinity",
        "share",
        "of the recency-weighted contacts of the item's brand",
        _BRAND,
        lambda m: m.affinity(m.matrix.brand),
    ),
    Reading(
        "price_ratio",
        "log ratio",
        "price over the mean of the contacts",
        (*_CONTACTS, "price"),
        lambda m: m.price_ratio,
    ),
    Reading("days_since", "days", "since the visitor's last contact", _CONTACTS, lambda m: m.days_since),
    Reading(
        "shown_pages_ago",
        "pages",
        "since the item was listed; 0: the newest page",
        _SHOWN,
        lambda m: m.shown[0],
    ),
    Reading("shown_position", "place", "where it was listed", _SHOWN, lambda m: m.shown[1]),
)


def _standing(column: str, doc: str, of: tuple[str, ...], read: Callable[[Meeting], Any]) -> Reading:
    return Reading(column, "share", f"of the candidates with {doc}", of, read)


STANDINGS: tuple[Reading, ...] = (  # what is read is ranked by assemble
    _standing("tower_place", "a lower cosine", _CONTACTS, lambda m: m.scores.tower),
    _standing("covisit_place", "fewer co-visits", _CONTACTS, lambda m: m.scores.covisit),
    _standing("ease_place", "a lower EASE score", _CONTACTS, lambda m: m.scores.ease),
    _standing("als_place", "a lower ALS score", _CONTACTS, lambda m: m.scores.als),
    _standing("ctr_place", "a lower click rate", ("clicks_7d", "exposure_7d"), lambda m: m.items["ctr_7d"]),
)
