"""The shelf as a whole: what everybody sees anyway gives way a little, and neighbours differ.

Maximal marginal relevance over category and price band (Carbonell and Goldstein, SIGIR 1998), on a relevance
from which popularity is partly discounted: a ranker fitted on exposures feeds on its own bestsellers.
"""

from dataclasses import dataclass

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.vectorize import COLUMNS
from serving.types import Ranked

VIEWS = COLUMNS.index("views_7d")


@dataclass(frozen=True)
class Diversify:
    """Section `diversify` of params.yaml."""

    popularity_discount: float  # taken off the relevance of the most viewed candidate; 0 = none
    trade_off: float  # 0 = relevance alone, 1 = difference alone
    category_weight: float  # similarity of two items of one category; the rest is for one price band


def diversify(params: Diversify, ranked: Ranked, matrix: ItemMatrix, limit: int) -> list[int]:
    """Positions in `ranked` of the chosen items, in the order of the slots, at most `limit`.

    relevance = score scaled to [0, 1] over the candidates - discount * log1p(views) / greatest log1p(views);
    greedy: argmax of (1 - t) * relevance - t * (greatest similarity to what is chosen).

    With discount and t of 0 the answer is 0, 1, 2, ...: the ranker's order.
    """
    n = min(limit, len(ranked.rows))
    if n == 0:
        return []
    low, high = ranked.score.min(), ranked.score.max()
    views = np.log1p(ranked.matrix[:, VIEWS])
    relevance = (ranked.score - low) / max(high - low, 1e-9)
    relevance -= params.popularity_discount * views / max(views.max(), 1e-9)
    if params.trade_off == 0:
        best_first: list[int] = np.argsort(-relevance, kind="stable")[:n].tolist()
        return best_first
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
