"""Co-visitation and popularity: what needs no more than counting."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from .contract import Peer, Rows, Scores, Visits


class Popularity(Peer):
    """Visits per item over the newest part of the span."""

    fits: ClassVar = {"share": (0.02, 0.05, 0.1, 0.3, 1.0)}  # of the visits, the newest

    def fit(self, visits: Visits, seed: int, **settings: Any) -> None:
        newest = visits.starts[-1 - max(1, round(settings["share"] * len(visits)))]
        self._counts = np.bincount(visits.items[newest:], minlength=visits.n).astype(np.float64)

    def scores(self, rows: Rows, **_: Any) -> Scores:
        return self._counts


class Covisits(Peer):
    """Items contacted within `window` places of each other in a visit, the later one counting in full.

    table[i, j] += distance_decay ** (d - 1) [* backward where j came before i]
    score(j)     = sum over the history, newest first, of decay ** age * table[i, j] / total[i] ** damping
                   / total[j] ** damping
    """

    fits: ClassVar = {"window": (5, 10), "backward": (0.5, 1.0), "damping": (0.0, 0.3, 0.5)}
    asks: ClassVar = {"decay": (0.4, 0.6, 0.8)}
    distance_decay: ClassVar = 0.8

    def fit(self, visits: Visits, seed: int, **settings: Any) -> None:
        visit = np.repeat(np.arange(len(visits)), np.diff(visits.starts))
        table = sparse.csr_matrix((visits.n, visits.n), dtype=np.float64)
        for d in range(1, settings["window"] + 1):
            first = np.flatnonzero(visit[d:] == visit[:-d])
            i, j = visits.items[first], visits.items[first + d]
            step = np.full(len(first), self.distance_decay ** (d - 1))
            table += sparse.csr_matrix((step, (i, j)), shape=table.shape)
            table += sparse.csr_matrix((step * settings["backward"], (j, i)), shape=table.shape)
        damped = [
            sparse.diags_array(
                np.maximum(np.asarray(table.sum(axis=axis)).ravel(), 1e-12) ** -settings["damping"]
            )
            for axis in (1, 0)
        ]
        self._table = sparse.csr_matrix(damped[0] @ table @ damped[1])

    def scores(self, rows: Rows, **settings: Any) -> Scores:
        return weighted_rows(self._table, rows, settings["decay"])


def weighted_rows(table: sparse.csr_matrix, rows: Rows, decay: float) -> Scores:
    """sum_k decay ** k * table[k-th newest of rows], float64 (n,)."""
    out = np.zeros(table.shape[1])
    for age, row in enumerate(rows[::-1].tolist()):
        span = slice(table.indptr[row], table.indptr[row + 1])
        out[table.indices[span]] += decay**age * table.data[span]
    return out
