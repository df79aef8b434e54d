"""Who proposes the next item of a list of ids: the tower, and what is counted or solved in closed form.

Own parts: co-visits and what comes next (training/collaborative/covisit.py), EASE (ease.py) and the tower;
V-SKNN and SLIST are those of benchmarks/peers. Settings that a fit is cheap enough to try are chosen on
validation, those of EASE and SLIST stand here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Protocol

import numpy as np
from idtower import contacts_of
from nextitem import Asked, K
from peers.contract import Peer, Rows, Settings, Visits
from peers.covisits import weighted_rows
from peers.knn import Vsknn
from peers.linear import Slist
from scipy import sparse

from feature_repo.params import load
from training.collaborative.covisit import CovisitParams, fit_covisit
from training.collaborative.ease import fit_ease
from training.collaborative.item_item import ItemItemParams
from training.collaborative.neighbours import best_of_dense
from training.dataset import session_matrix

Floats = np.ndarray[Any, np.dtype[np.float32]]
SLIST: Settings = {"alpha": 0.8, "regularization": 10.0, "spread": 5.0, "memory": 2.0}
EASE: Settings = {"regularization": 20.0, "decay": 0.5}
KNN = (
    {"k": 500, "decay": "div", "idf": idf} | {"sample": sample}
    for sample in (1000, 5000)
    for idf in (False, True)
)
KEPT = 1000  # neighbours of an item


class Source(Protocol):
    """Anything that scores all items for prefixes; 0 where nothing is known, never below."""

    def scores(self, prefixes: Sequence[Rows]) -> Floats:
        """float32 (b, n), a row by its own prefix alone."""


@dataclass(frozen=True)
class Table:
    """Item-item weights (n, n); the k-th newest contact of a prefix weighs decay ** k."""

    table: sparse.csr_matrix
    decay: float

    def scores(self, prefixes: Sequence[Rows]) -> Floats:
        return np.array([weighted_rows(self.table, one, self.decay) for one in prefixes], np.float32)


@dataclass(frozen=True)
class OfPeer:
    """A peer of benchmarks/peers with settings of an answer."""

    peer: Peer
    ask: Settings

    def scores(self, prefixes: Sequence[Rows]) -> Floats:
        found = np.array([self.peer.scores(one, **self.ask) for one in prefixes], np.float32)
        return np.maximum(found, 0.0)  # -inf where nothing is known, and a negative weight is no proposal


def rank_of(source: Source, asked: Asked) -> Rows:
    """int64 (q,): the rank of each wanted item by one source alone, 0 being the best."""
    blocks = range(0, len(asked.wanted), 128)
    return np.concatenate(
        [ranks(source.scores(asked.prefixes[at : at + 128]), asked.wanted[at : at + 128]) for at in blocks]
    )


def reciprocal_rank(source: Source, asked: Asked) -> float:
    """MRR@20 of one source."""
    rank = rank_of(source, asked)
    return float(np.where(rank < K, 1 / (rank + 1), 0).mean())


def ranks(scores: Floats, wanted: Rows) -> Rows:
    """int64 (b,): items that stand before the wanted one or level with it; n where it has no score."""
    own = np.take_along_axis(scores, wanted[:, None], axis=1)
    rank = (scores >= own).sum(axis=1) - 1
    return np.where(own[:, 0] > 0, rank, scores.shape[1])


@dataclass(frozen=True)
class Chosen:
    """What validation chose for the sources that are cheap to try."""

    covisit: tuple[CovisitParams, float]
    next: tuple[CovisitParams, float]
    knn: Settings


def chosen(visits: Visits, asked: Asked) -> Chosen:
    """The best settings by MRR@20 on `asked`, of sources that know `visits`."""
    contacts = contacts_of(visits)

    def best(window: int, backwards: Sequence[float], decays: Sequence[float]) -> tuple[CovisitParams, float]:
        tried: list[tuple[float, CovisitParams, float]] = []
        for backward, popularity in product(backwards, (0.1, 0.3, 0.5)):
            params = CovisitParams(window, 0.7, backward, (1.0, 1.0, 1.0), popularity)
            table = fit_covisit(contacts, visits.n, params)
            tried += [(reciprocal_rank(Table(table, decay), asked), params, decay) for decay in decays]
        return max(tried, key=lambda one: one[0])[1:]

    peer = Vsknn()
    peer.fit(visits, 0)
    knn = max(KNN, key=lambda ask: reciprocal_rank(OfPeer(peer, ask), asked))
    return Chosen(best(5, (0.5, 1.0), (0.4, 0.6, 0.8)), best(1, (0.0, 0.5), (0.2, 0.4, 0.6)), knn)


def counted(visits: Visits, settings: Chosen) -> dict[str, Callable[[], Source]]:
    """Name -> a function that fits the source on `visits`."""
    contacts = contacts_of(visits)

    def table(of: tuple[CovisitParams, float]) -> Table:
        return Table(fit_covisit(contacts, visits.n, of[0]), of[1])

    def ease() -> Table:
        params = replace(load("item_item", ItemItemParams).ease, regularization=EASE["regularization"])
        weights, warm = fit_ease(session_matrix(contacts, visits.n), params)
        return Table(best_of_dense(weights, warm, visits.n, KEPT), EASE["decay"])

    def peer(of: Peer, fit: Settings, ask: Settings) -> OfPeer:
        of.fit(visits, 0, **fit)
        return OfPeer(of, ask)

    slist = {name: value for name, value in SLIST.items() if name != "memory"}
    return {
        "V-SKNN": lambda: peer(Vsknn(), {}, settings.knn),
        "own co-visits": lambda: table(settings.covisit),
        "own next": lambda: table(settings.next),
        "own EASE": ease,
        "SLIST": lambda: peer(Slist(), slist, {"memory": SLIST["memory"]}),
    }
