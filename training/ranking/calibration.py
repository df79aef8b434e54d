"""From the ranker's score to the chance of a contact: isotonic regression on the validation span.

The chance is that of a candidate in a list that holds something wanted, as every list of the training set
does: good to weigh one item against another, too high as a forecast of clicks.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

Doubles = npt.NDArray[np.float64]
BINS = 10  # of the reliability picture, equally many candidates in each


@dataclass(frozen=True)
class Calibration:
    """A rising curve, straight between its corners: score float64 (m,) ascending, chance float64 (m,).

    `brier`: mean squared error of chances given by the other half of the queries; `plain`: of one chance for
    all. `reliability`: per bin the chance that was told, what came true, and how many candidates.
    """

    score: Doubles
    chance: Doubles
    brier: float
    plain: float
    reliability: tuple[tuple[float, float, int], ...]

    def told(self) -> dict[str, Any]:
        """Plain values for calibration.json."""
        curve = {"score": self.score.tolist(), "chance": self.chance.tolist()}
        return curve | {"brier": self.brier, "brier_plain": self.plain, "reliability": self.reliability}


def calibrate(score: Doubles, wanted: npt.NDArray[np.bool_], group: npt.NDArray[np.int64]) -> Calibration:
    """Fit on candidates (n,) of queries of `group` (q,) candidates each; q must be 2 or more.

    What is reported of each half of the queries was fitted on the other.

    >>> found = calibrate(np.arange(8.0), np.arange(8) % 4 > 1, np.array([4, 4]))
    >>> np.interp([0.0, 7.0], found.score, found.chance).tolist()
    [0.0, 1.0]
    """
    half = np.repeat(np.arange(len(group)) % 2 == 1, group)
    chance = np.empty(len(score))
    for one in (half, ~half):
        chance[one] = _fit(score[~one], wanted[~one]).predict(score[one])
    edges = np.quantile(chance, np.arange(1, BINS) / BINS)
    at = np.searchsorted(edges, chance, side="right")
    bins = tuple(
        (float(chance[at == i].mean()), float(wanted[at == i].mean()), int((at == i).sum()))
        for i in np.unique(at)
    )
    curve = _fit(score, wanted)
    return Calibration(
        np.asarray(curve.X_thresholds_, np.float64),
        np.asarray(curve.y_thresholds_, np.float64),
        float(np.mean((chance - wanted) ** 2)),
        float(wanted.mean() * (1 - wanted.mean())),
        bins,
    )


def _fit(score: Doubles, wanted: npt.NDArray[np.bool_]) -> IsotonicRegression:
    return IsotonicRegression(out_of_bounds="clip").fit(score, wanted)
