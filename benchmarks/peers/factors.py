"""ALS and BPR by the package `implicit`: visits x items factorised, a history folded in when asked."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from .contract import Peer, Rows, Scores, Visits


class Als(Peer):
    """Implicit-feedback ALS (Hu, Koren, Volinsky, ICDM 2008); a history is solved for like a visit."""

    fits: ClassVar = {
        "factors": (64, 128),
        "regularization": (1.0, 10.0, 100.0, 400.0),
        "alpha": (20.0, 80.0),
    }
    iterations: ClassVar = 10
    random = True

    def fit(self, visits: Visits, seed: int, **settings: Any) -> None:
        from implicit.cpu.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(
            **settings, iterations=self.iterations, num_threads=1, random_state=seed
        )
        x = visits.matrix()
        model.fit(x, show_progress=False)
        self._items = np.asarray(model.item_factors, np.float64)
        self._items[np.asarray(x.sum(axis=0)).ravel() == 0] = 0.0
        self._alpha = settings["alpha"]
        identity = settings["regularization"] * np.eye(self._items.shape[1])
        self._every = self._items.T @ self._items + identity

    def scores(self, rows: Rows, **_: Any) -> Scores:
        seen = self._items[np.unique(rows)]
        left = self._every + (self._alpha - 1) * seen.T @ seen
        return self._items @ np.linalg.solve(left, self._alpha * seen.sum(axis=0))


class Bpr(Peer):
    """Bayesian personalised ranking (Rendle et al., UAI 2009); a history is the mean of its items' factors.

    BPR has no fold-in of its own; the mean is what session benchmarks use for it (Hidasi et al., 2016).
    """

    fits: ClassVar = {
        "factors": (64,),
        "regularization": (0.01,),
        "learning_rate": (0.05, 0.2),
        "iterations": (50, 150, 400),
    }
    asks: ClassVar = {"decay": (0.7, 1.0)}
    random = True

    def fit(self, visits: Visits, seed: int, **settings: Any) -> None:
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        x = sparse.csr_matrix(visits.matrix())
        model = BayesianPersonalizedRanking(**settings, num_threads=1, random_state=seed)
        model.fit(x, show_progress=False)
        self._items = np.asarray(model.item_factors, np.float64)  # the last column is the item's bias
        self._cold = np.asarray(x.sum(axis=0)).ravel() == 0

    def scores(self, rows: Rows, **settings: Any) -> Scores:
        weights = settings["decay"] ** np.arange(len(rows))[::-1]
        user = weights @ self._items[rows] / weights.sum()
        user[-1] = 1.0
        found = self._items @ user
        found[self._cold] = -np.inf
        return found
