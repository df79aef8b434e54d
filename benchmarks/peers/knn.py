"""V-SKNN: vector multiplication session kNN (Ludewig and Jannach, UMUAI 2018, section 3.2.2)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from .contract import Peer, Rows, Scores, Visits


class Vsknn(Peer):
    """Among the `sample` newest visits that share an item, the `k` most similar vote for their items.

    With w(p) the weight of the item at place p of a history of n, 1-based (`decay`: p / n, or 1 - .1 (n - p),
    not below 0), and the history and a past visit as sets,

        similarity(visit) = sum over shared items of w / number of items of the history
        score(item)       = sum over neighbours with the item of similarity * match(d) [* idf(item)]

    where d counts back to the newest shared item, 1 for the last, and match is 1 / d or 1 - .1 (d - 1), as
    `decay` says.
    """

    asks: ClassVar = {
        "k": (100, 500, 1500),
        "sample": (500, 5000),
        "decay": ("div", "linear"),
        "idf": (False, True),
    }

    def fit(self, visits: Visits, seed: int, **_: Any) -> None:
        self._visits = visits.matrix()
        by_item = sparse.csc_matrix(self._visits)
        by_item.sort_indices()
        self._starts, self._members = by_item.indptr, by_item.indices  # visits of an item, oldest first
        often = np.diff(self._starts)
        self._idf = np.log(len(visits) / np.maximum(often, 1)).astype(np.float64)

    def scores(self, rows: Rows, **settings: Any) -> Scores:
        k, sample, decay, idf = (settings[name] for name in ("k", "sample", "decay", "idf"))
        n = len(rows)
        places = {int(row): place for place, row in enumerate(rows, 1)}  # the newest place of an item
        out = np.zeros(self._visits.shape[1])
        found, weights, distances = [], [], []
        for row, place in places.items():
            members = self._members[self._starts[row] : self._starts[row + 1]]
            found.append(members[-sample:])  # of the newest of all no item needs more
            weights.append(np.full(len(found[-1]), _weight(decay, place, n)))
            distances.append(np.full(len(found[-1]), n - place + 1))
        visit, inverse = np.unique(np.concatenate(found), return_inverse=True)
        if not len(visit):
            return out
        similarity = np.bincount(inverse, np.concatenate(weights)) / len(places)
        nearest = np.full(len(visit), n + 1)
        np.minimum.at(nearest, inverse, np.concatenate(distances))
        visit, similarity, nearest = visit[-sample:], similarity[-sample:], nearest[-sample:]
        top = np.lexsort((-visit, -similarity))[:k]
        match = 1 / nearest[top] if decay == "div" else np.maximum(1 - 0.1 * (nearest[top] - 1), 0)
        votes = similarity[top] * match
        out += votes @ self._visits[visit[top]]
        return out * self._idf if idf else out


def _weight(decay: str, place: int, n: int) -> float:
    return place / n if decay == "div" else max(1 - 0.1 * (n - place), 0.0)
