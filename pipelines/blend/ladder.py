"""How early each order would have put what was clicked on logged lists: a rung per order, a table per phase.

A click deep in a list counts for more, by how seldom that position is looked at (inverse propensity: Joachims
et al., WSDM 2017; the chance is position ** -POSITION_EXPONENT), and that over all lists: normalised one by
one, a list with one click would count the same wherever it was. Only the order within a list is judged, for
nobody knows what else would have been clicked.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.folds.parts import POSITION_EXPONENT
from serving.stages.odds import PHASES, Clicks

RUNGS = ("as shown", "popular", "attraction", "ranker", "ours")
Doubles = npt.NDArray[np.float64]


def ladder(shown: pd.DataFrame, clicks: Clicks) -> dict[str, dict[str, float]]:
    """Phase -> lists with a click, and the share of the best DCG that each rung reaches."""
    weight = shown["clicked"] * shown["position"] ** POSITION_EXPONENT
    told = shown[shown["clicked"].groupby(shown["page"]).transform("any")].assign(gain=weight)
    found = {}
    for phase in PHASES:
        mine = told[told["phase"] == phase]
        if mine.empty:
            continue
        ours = clicks.ranker[phase] * mine["score"] + clicks.attraction[phase] * mine["attraction"]
        scores = (-mine["position"], mine["popular"], mine["attraction"], mine["score"], ours)
        reached = {name: _dcg(mine, score) for name, score in zip(RUNGS, scores, strict=True)}
        best = _dcg(mine, mine["gain"])
        found[phase] = {"lists": float(mine["page"].nunique())}
        found[phase] |= {name: dcg / best for name, dcg in reached.items()}
    return found


def dcg_of(gain: Doubles, score: Doubles) -> float:
    """DCG of the whole list by descending `score`; equal scores share the discounts of their places.

    >>> round(dcg_of(np.array([0.0, 1.0]), np.array([2.0, 1.0])), 4)
    0.6309
    """
    discount = 1.0 / np.log2(np.arange(2, len(gain) + 2))
    _, tied = np.unique(-score, return_inverse=True)
    places = np.argsort(tied, kind="stable")
    shared = np.bincount(tied[places], discount) / np.bincount(tied)
    return float(gain @ shared[tied])


def _dcg(shown: pd.DataFrame, score: "pd.Series[float]") -> float:
    lists = shown.assign(by=score).groupby("page")
    return sum(dcg_of(one["gain"].to_numpy(), one["by"].to_numpy()) for _, one in lists)


def lines(found: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """Cells of a table: phase, lists, and the rungs in order."""
    return [
        (phase, f"{row['lists']:,.0f}", *(f"{row[name]:.3f}" for name in RUNGS))
        for phase, row in found.items()
    ]
