"""From the score that serves to the chance of a click, calibrated on the shop's logged lists.

    log odds of a click = of the surface + b * log(position) + w * score, then isotonic regression

What is reported of each half of the lists was fitted on the other. The scores are of trees that have not seen
the lists' span.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from training.ranking.calibration import calibrate

STRENGTH = 100.0  # of the regression: weak, a surface without clicks has finite log odds


def calibrated(shown: pd.DataFrame, weights: Mapping[str, Any], least: int) -> dict[str, Any]:
    """Fields of serving.stages.odds.Chances, with `brier`, `brier_plain`, `reliability`, `clicks`.

    `shown` as pipelines.blend.clicks.examples gives it, `weights` by phase. With less than `least` clicks
    `clicks` and `why` alone.
    """
    clicks = int(shown["clicked"].sum()) if len(shown) else 0
    if clicks < least or shown["page"].nunique() < 2:
        return {"clicks": clicks, "why": f"{clicks} clicks on logged lists are too few, {least} are needed"}
    surfaces, code = np.unique(shown["surface"].to_numpy(str), return_inverse=True)
    x = np.column_stack([np.eye(len(surfaces))[code], np.log(shown["position"]), served(shown, weights)])
    clicked = shown["clicked"].to_numpy(np.bool_)
    fit = LogisticRegression(C=STRENGTH, fit_intercept=False, max_iter=500).fit(x, clicked)
    weight = fit.coef_[0].astype(np.float64)
    order = np.argsort(shown["page"].to_numpy(), kind="stable")
    _, group = np.unique(shown["page"].to_numpy()[order], return_counts=True)
    found = calibrate((x @ weight)[order], clicked[order], group)
    return {
        "surface": dict(zip(surfaces.tolist(), weight[: len(surfaces)].tolist(), strict=True)),
        "position": float(weight[-2]),
        "weight": float(weight[-1]),
        "odds": found.score.tolist(),
        "chance": found.chance.tolist(),
        "clicks": clicks,
        "brier": found.brier,
        "brier_plain": found.plain,
        "reliability": found.reliability,
    }


def served(shown: pd.DataFrame, weights: Mapping[str, Any]) -> np.ndarray:
    """The score that would order these items, float64 (n,)."""
    ranker, pull = (shown["phase"].map(weights[name]).astype(float) for name in ("ranker", "attraction"))
    return np.asarray(ranker * shown["score"] + pull * shown["attraction"], np.float64)


def told(report: Mapping[str, Any]) -> str:
    """One line."""
    if "why" in report:
        return f"no chance of a click is calibrated: {report['why']}"
    brier = f"Brier {report['brier']:.5f}, of one chance for all {report['brier_plain']:.5f}"
    return f"chance of a click: {report['clicks']:,} clicks, {brier}"
