"""The ranker's columns of one visitor and many items: what retrieval scored, affinity, price, exposure.

Nothing here is stored: each is computed when it is asked for, from stored rows that were brought to `now`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.matrix import Doubles, ItemMatrix, Rows
from feature_repo.assemble.visitor import History, Scores, Visitor
from feature_repo.folds.fold import Reading

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
    def recency(self) -> Doubles:
        """Weights of the contacts (h,), the newest weighs 1."""
        return np.asarray(RECENCY ** np.arange(len(self.past.rows))[::-1], np.float64)

    def affinity(self, codes: npt.NDArray[np.int32]) -> Doubles:
        """Share of the recency-weighted contacts that have the candidate's code, (n,); 0 where unknown."""
        if not len(self.recency):
            return np.zeros(len(self.rows))
        mine = codes[self.rows][:, None]  # (n, 1)
        same = (mine == codes[self.past.rows]) & (mine > 0)  # (n, h)
        share: Doubles = same @ self.recency / self.recency.sum()
        return share

    @cached_property
    def price_ratio(self) -> Doubles:
        seen = self.matrix.price_log[self.past.rows]
        seen = seen[~np.isnan(seen)]
        if not len(seen):
            return np.full(len(self.rows), np.nan)
        return np.asarray(self.matrix.price_log[self.rows] - seen.mean())

    @cached_property
    def shown(self) -> tuple[Doubles, Doubles, Doubles]:
        """Per candidate (n,): pages since it was listed (0 = the newest), its position, how often."""
        session: Mapping[str, Any] = self.visitor.session
        n = len(self.rows)
        ago, position, count = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n)
        lists = ("shown_pages", "shown_positions", "shown_counts")
        found = {
            item: rest
            for item, *rest in zip(session["shown_items"], *(session[name] for name in lists), strict=True)
        }
        if found:
            for i, row in enumerate(self.rows.tolist()):
                if held := found.get(self.matrix.ids[row]):
                    ago[i], position[i], count[i] = session["pages"] - held[0], held[1] or np.nan, held[2]
        return ago, position, count


_CONTACTS = ("recent_items", "contact_items")
_SHOWN = ("shown_items", "shown_pages", "shown_positions", "shown_counts", "pages")
CROSSES: tuple[Reading, ...] = (
    Reading("tower_score", "cosine", "user tower . item tower", _CONTACTS, lambda m: m.scores.tower),
    Reading("covisit_score", "weight", "co-visits with the history", _CONTACTS, lambda m: m.scores.covisit),
    Reading("ease_score", "weight", "EASE over the history", _CONTACTS, lambda m: m.scores.ease),
    Reading("last_item_score", "weight", "EASE of the newest item", _CONTACTS, lambda m: m.scores.last_item),
    Reading(
        "category_affinity",
        "share",
        "of the recency-weighted contacts in the item's category",
        (*_CONTACTS, "category_path"),
        lambda m: m.affinity(m.matrix.category),
    ),
    Reading(
        "brand_affinity",
        "share",
        "of the recency-weighted contacts of the item's brand",
        (*_CONTACTS, "brand"),
        lambda m: m.affinity(m.matrix.brand),
    ),
    Reading(
        "price_ratio",
        "log ratio",
        "price over the mean of the contacts",
        (*_CONTACTS, "price"),
        lambda m: m.price_ratio,
    ),
    Reading(
        "shown_pages_ago",
        "pages",
        "since the item was listed; 0: the newest page",
        _SHOWN,
        lambda m: m.shown[0],
    ),
    Reading("shown_position", "place", "where it was listed", _SHOWN, lambda m: m.shown[1]),
    Reading("shown_count", "times", "how often it was listed in this visit", _SHOWN, lambda m: m.shown[2]),
)
