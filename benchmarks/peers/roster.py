"""Who takes part, and how its settings are chosen on validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .contract import Peer, Settings, Visits, combinations
from .covisits import Covisits, Popularity
from .factors import Als, Bpr
from .knn import Vsknn
from .linear import Ease, Slist
from .sasrec import Sasrec

PEERS: dict[str, type[Peer]] = {
    "popularity": Popularity,
    "V-SKNN": Vsknn,
    "co-visits": Covisits,
    "EASE": Ease,
    "SLIST": Slist,
    "ALS": Als,
    "BPR": Bpr,
    "SASRec": Sasrec,
}


class Chosen(NamedTuple):
    """Settings of fit and answer that won, what they reached on validation, and how many were tried."""

    fit: Settings
    ask: Settings
    reached: float
    tried: int


def choose(
    peer: Peer, visits: Visits, seed: int, judge: Callable[[Peer, Settings], float], earlier: tuple[bool, ...]
) -> Chosen:
    """The settings with the highest `judge(peer, settings of the answer)`; the first of equals.

    `earlier`: whether contacts of earlier visits may be part of the history, tried like a setting.
    """
    found: Chosen | None = None
    tried = 0
    for fit in peer.trained(visits, seed):
        for ask in combinations({**peer.asks, "earlier": earlier}):
            tried += 1
            reached = judge(peer, ask)
            if found is None or reached > found.reached:
                found = Chosen(fit, ask, reached, tried)
    assert found is not None  # a grid has at least one setting
    return found._replace(tried=tried)
