"""How early each order would have put what was clicked on logged lists: a rung per order, a table per phase.

A click deep in a list counts for more, by how seldom that position is looked at (inverse propensity: Joachims
et al., WSDM 2017; the chance is position ** -POSITION_EXPONENT). Only the order within a list is judged, for
nobody knows what else would have been clicked.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.folds.parts import POSITION_EXPONENT
from serving.stages.attraction import PHASES, Clicks

RUNGS = ("as shown", "popular", "attraction", "ranker", "ours")
Doubles = npt.NDArray[np.float64]


def ladder(shown: pd.DataFrame, clicks: Clicks) -> dict[str, dict[str, float]]:
    """Phase -> lists with a click, and the mean NDCG of every rung; `shown` as clicks.examples gives it."""
    weight = shown["clicked"] * shown["position"] ** POSITION_EXPONENT
    told = shown[shown["clicked"].groupby(shown["page"]).transform("any")].assign(gain=weight)
    found = {}
    for phase in PHASES:
        mine = told[told["phase"] == phase]
        if mine.empty:
            continue
        ours = clicks.ranker[phase] * mine["score"] + clicks.attraction[phase] * mine["attraction"]
        scores = (-mine["position"], mine["popular"], mine["attraction"], mine["score"], ours)
        ndcg = {name: _ndcg(mine, score) for name, score in zip(RUNGS, scores, strict=True)}
        found[phase] = {"lists": float(mine["page"].nunique())} | ndcg
    return found


def ndcg_of(gain: Doubles, score: Doubles) -> float:
    """NDCG of the whole list by descending `score`; equal scores share the discounts of their places.

    >>> round(ndcg_of(np.array([0.0, 1.0]), np.array([2.0, 1.0])), 4)
    0.6309
    """
    discount = 1.0 / np.log2(np.arange(2, len(gain) + 2))
    _, tied = np.unique(-score, return_inverse=True)
    places = np.argsort(tied, kind="stable")
    shared = np.bincount(tied[places], discount) / np.bincount(tied)
    return float(gain @ shared[tied] / (np.sort(gain)[::-1] @ discount))


def _ndcg(shown: pd.DataFrame, score: "pd.Series[float]") -> float:
    lists = shown.assign(by=score).groupby("page")
    return float(np.mean([ndcg_of(one["gain"].to_numpy(), one["by"].to_numpy()) for _, one in lists]))


def lines(found: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """Cells of a table: phase, lists, and the rungs in order."""
    return [
        (phase, f"{row['lists']:,.0f}", *(f"{row[name]:.3f}" for name in RUNGS))
        for phase, row in found.items()
    ]
