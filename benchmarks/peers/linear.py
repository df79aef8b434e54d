"""EASE (Steck, WWW 2019) and SLIST (Choe et al., WWW 2021): item-item weights in closed form.

Both hold a dense square matrix: beyond MOST_ITEMS the items of most visits alone are learned, which is told.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from .contract import Peer, Rows, Scores, Visits

EMPTY = [(np.empty(0, np.int64),) * 3]
MOST_ITEMS = 12_000  # .6 GB in float32; SLIST holds two such matrices


class Dense(Peer):
    """Weights (w, w) of the rows `known`; a history is a vector whose newest item weighs 1."""

    _table: npt.NDArray[np.float32]

    def learn(self, visits: Visits) -> Visits:
        """The visits with items renumbered within `known`, those of other items left out."""
        counts = visits.counts()
        most = np.argsort(-counts, kind="stable")[: min(MOST_ITEMS, int((counts > 0).sum()))]
        self._n, self._known = visits.n, np.sort(most)
        self._place = np.full(visits.n, -1)
        self._place[self._known] = np.arange(len(self._known))
        items = self._place[visits.items]
        visit = np.repeat(np.arange(len(visits)), np.diff(visits.starts))[items >= 0]
        starts = np.concatenate([[0], np.cumsum(np.bincount(visit, minlength=len(visits)))])
        return Visits(items[items >= 0], starts.astype(np.int64), len(self._known))

    def weigh(self, rows: Rows, weights: npt.NDArray[np.float64]) -> Scores:
        """weights (h,) of the history `rows` times the table, -inf for items that it does not hold."""
        places = self._place[rows]
        held = places >= 0
        out = np.full(self._n, -np.inf)
        out[self._known] = weights[held] @ self._table[places[held]]
        return out


class Ease(Dense):
    """B = I - P / diag(P) with P = (X'X + regularization I)^-1."""

    fits: ClassVar = {"regularization": (5.0, 20.0, 100.0, 300.0, 1000.0)}
    asks: ClassVar = {"decay": (0.3, 0.5, 0.7, 1.0)}

    def fit(self, visits: Visits, seed: int, **settings: Any) -> None:
        x = self.learn(visits).matrix()
        gram = (x.T @ x).toarray(order="F")
        gram[np.diag_indices_from(gram)] += np.float32(settings["regularization"])
        factor, _ = linalg.lapack.spotrf(gram, lower=1, overwrite_a=1)
        lower, _ = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)  # the lower triangle of the inverse
        inverse = np.tril(lower) + np.tril(lower, -1).T
        inverse /= -np.diag(inverse).copy()
        np.fill_diagonal(inverse, 0.0)
        self._table = inverse

    def scores(self, rows: Rows, **settings: Any) -> Scores:
        return self.weigh(rows, settings["decay"] ** np.arange(len(rows))[::-1])


class Slist(Dense):
    """B = (A + regularization I)^-1 C, the paper's equation 15 without a weight of the visit's age.

    A = alpha X'X + (1 - alpha) Z'Z and C = alpha X'X + (1 - alpha) Z'Y, where every split of a visit into a
    past and a future gives a row of Z and of Y; an item weighs exp(-distance from the split / spread) / 2 in
    each, so that near pairs count. A history's item weighs exp(-age / memory).
    """

    fits: ClassVar = {
        "alpha": (0.2, 0.5, 0.8),
        "regularization": (10.0, 100.0, 500.0),
        "spread": (1.0, 5.0),
    }
    asks: ClassVar = {"memory": (1.0, 2.0, 5.0)}

    def fit(self, visits: Visits, seed: int, **settings: Any) -> None:
        known = self.learn(visits)
        x = known.matrix()
        past, future = splits(known, settings["spread"])
        alpha = settings["alpha"]
        every = alpha * (x.T @ x)
        left = (every + (1 - alpha) * (past.T @ past)).toarray()
        left[np.diag_indices_from(left)] += np.float32(settings["regularization"])
        right = (every + (1 - alpha) * (past.T @ future)).toarray()
        self._table = linalg.solve(
            left, right, assume_a="pos", overwrite_a=True, overwrite_b=True, check_finite=False
        )

    def scores(self, rows: Rows, **settings: Any) -> Scores:
        return self.weigh(rows, np.exp(-np.arange(len(rows))[::-1] / settings["memory"]))


def splits(visits: Visits, spread: float) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Past and future of every split of every visit, float32 (splits, n) each.

    >>> past, future = splits(Visits.of([[0, 1, 2]], 3), 1e9)
    >>> past.toarray().astype(int).tolist(), future.toarray().astype(int).tolist()
    ([[1, 0, 0], [1, 1, 0]], [[0, 1, 1], [0, 0, 1]])
    """
    sides: tuple[list[tuple[Rows, Rows, Rows]], ...] = ([], [])
    number = 0
    for length in np.unique(np.diff(visits.starts)).tolist():
        if length < 2:
            continue
        of_length = np.flatnonzero(np.diff(visits.starts) == length)
        items = visits.items[visits.starts[of_length][:, None] + np.arange(length)]  # (visits, length)
        for cut in range(1, length):
            rows = number + np.arange(len(of_length))
            number += len(of_length)
            for side, part, away in (
                (0, items[:, :cut], np.arange(cut)[::-1]),
                (1, items[:, cut:], np.arange(length - cut)),
            ):
                row = np.repeat(rows, part.shape[1])
                sides[side].append((row, part.ravel(), np.tile(np.exp(-away / spread), len(rows))))
    made = []
    for parts in sides:
        row, column, value = (np.concatenate(p) for p in zip(*(parts or EMPTY), strict=True))
        coo = sparse.coo_matrix((value, (row, column)), shape=(number, visits.n), dtype=np.float32)
        made.append(sparse.csr_matrix(coo))
    return made[0], made[1]
