"""Maximal marginal relevance over category and price band (Carbonell and Goldstein, SIGIR 1998)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_repo.matrix import ItemMatrix
from serving.types import Ranked


@dataclass(frozen=True)
class Diversify:
    """Section `diversify` of params.yaml."""

    trade_off: float  # 0 = the ranker's order, 1 = difference alone
    category_weight: float  # similarity of two items of one category; the rest is for one price band


def diversify(params: Diversify, ranked: Ranked, matrix: ItemMatrix, limit: int) -> list[int]:
    """Positions in `ranked` of the chosen items, in the order of the slots, at most `limit`.

    Greedy: argmax of (1 - t) * relevance - t * (greatest similarity to what is chosen), relevance being the
    score scaled to [0, 1] over the candidates.

    With t = 0 the answer is 0, 1, 2, ...: the ranker's order.
    """
    n = min(limit, len(ranked.rows))
    if n == 0 or params.trade_off == 0:
        return list(range(n))
    low, high = ranked.score.min(), ranked.score.max()
    relevance = (ranked.score - low) / max(high - low, 1e-9)
    category, band = matrix.category[ranked.rows], matrix.price_band[ranked.rows]
    closest = np.zeros(len(relevance))  # similarity to the nearest item chosen so far
    value = (1 - params.trade_off) * relevance
    chosen: list[int] = []
    for _ in range(n):
        best = int(np.argmax(value - params.trade_off * closest))
        chosen.append(best)
        value[best] = -np.inf
        same_category = (category == category[best]) & (category[best] > 0)
        same_band = (band == band[best]) & (band[best] > 0)
        similarity = params.category_weight * same_category + (1 - params.category_weight) * same_band
        np.maximum(closest, similarity, out=closest)
    return chosen
