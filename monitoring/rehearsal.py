"""Canaries rehearsed with a known true drop, many times: what the guard's policy costs, how often it errs.

The user-days are drawn without approximation, but many at once: a user-day is one of a few hundred cells
(impressions, clicks) of known probability, so that a look's worth of them is one multinomial draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import betabinom, binom, geom

from monitoring.experiment import ArmStatistics


@dataclass(frozen=True)
class Shoppers:
    """What user-days look like: 12-slot lists, geometrically many a day, and clicks that come together.

    `ctr` is clicks per served slot, `impressions` the mean per user-day, `clustering` the correlation of two
    clicks of one user-day (0 = independent slots; beta-binomial).

    >>> round(Shoppers(ctr=0.05, impressions=30.0, clustering=0.1).design_effect, 1)
    5.6
    """

    ctr: float
    impressions: float
    clustering: float
    slots: int = 12

    def cells(self, drop: float = 0.0) -> tuple[ArmStatistics, np.ndarray]:
        """Every possible user-day, fields of shape (cells,), and its chance, with the CTR down by `drop`."""
        ctr = self.ctr * (1.0 - drop)
        lists = np.arange(1, 13)
        weights = geom.pmf(lists, _geometric_rate(self.impressions / self.slots, lists))
        weights /= weights.sum()
        shown, clicks, chance = [], [], []
        for impressions, weight in zip(lists * self.slots, weights, strict=True):
            x = np.arange(impressions + 1)
            shown.append(np.full(len(x), impressions))
            clicks.append(x)
            chance.append(weight * self._click_chances(x, int(impressions), ctr))
        probability = np.concatenate(chance)
        likely = probability > 1e-9
        day = ArmStatistics.of(np.concatenate(clicks)[likely], np.concatenate(shown)[likely])
        return day, probability[likely] / probability[likely].sum()

    @property
    def design_effect(self) -> float:
        """How many times larger the CTR's variance is than if all slots were independent."""
        day, p = self.cells()
        ctr = (day.clicks @ p) / (day.impressions @ p)
        between = ((day.clicks - ctr * day.impressions) ** 2 @ p) / (day.impressions @ p)
        return float(between / (ctr * (1 - ctr)))

    def _click_chances(self, clicks: np.ndarray, impressions: int, ctr: float) -> np.ndarray:
        if self.clustering == 0:
            return binom.pmf(clicks, impressions, ctr)
        concentration = 1.0 / self.clustering - 1.0
        return betabinom.pmf(clicks, impressions, ctr * concentration, (1 - ctr) * concentration)


def watched(
    rng: np.random.Generator, shoppers: Shoppers, drop: float, per_look: np.ndarray, runs: int
) -> ArmStatistics:
    """What an arm looks like at each look, fields of shape (runs, looks).

    `per_look` (looks,) int: user-days that are new since the look before.
    """
    day, probability = shoppers.cells(drop)
    counts = rng.multinomial(per_look, probability, size=(runs, len(per_look)))  # (runs, looks, cells)
    total = np.cumsum(counts, axis=1)
    units = total.sum(axis=2)
    cells = np.stack([day.clicks, day.impressions, day.clicks_sq, day.impressions_sq, day.cross], axis=1)
    sums = total.astype(float) @ cells.astype(float)  # (runs, looks, 5)
    return ArmStatistics(units, units, *np.moveaxis(sums, 2, 0))


def _geometric_rate(mean: float, support: np.ndarray) -> float:
    """Rate of the geometric distribution that has this mean once cut to the support (bisection)."""
    low, high = 1e-6, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        weights = geom.pmf(support, rate)
        low, high = (rate, high) if support @ weights / weights.sum() > mean else (low, rate)
    return rate
