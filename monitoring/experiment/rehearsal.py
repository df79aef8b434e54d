"""Canaries rehearsed with a known true drop, many times: what the guard's policy costs, how often it errs.

The user-days are drawn without approximation, but many at once: a user-day is one of a few hundred cells
(impressions, clicks) of known probability. A look's worth of them is one multinomial draw of the common
kinds, and a draw of its own for each user-day of a rare one.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import betabinom, binom, geom

from monitoring.experiment.guard import RolloutParams, Step, judge
from monitoring.experiment.sequential import ArmStatistics


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
        """User-days, fields (cells,), and their chances with the CTR down by `drop`; likeliest first."""
        ctr = self.ctr * (1.0 - drop)
        lists = np.arange(1, 13)
        weights = geom.pmf(lists, _geometric_rate(self.impressions / self.slots, lists))
        weights /= weights.sum()
        most = lists * self.slots
        shown = np.repeat(most, most + 1)
        clicks = np.concatenate([np.arange(slots + 1) for slots in most])
        probability = np.repeat(weights, most + 1) * self._click_chances(clicks, shown, ctr)
        order = np.argsort(-probability, kind="stable")
        likely = order[: int((probability > 1e-9).sum())]
        day = ArmStatistics.of(clicks[likely], shown[likely])
        return day, probability[likely] / probability[likely].sum()

    @classmethod
    def measured(cls, arm: ArmStatistics) -> Self:
        """The shoppers of an arm. Clustering by moments: residuals of n slots have variance
        ctr (1 - ctr) n (1 + (n - 1) clustering) if two clicks of a shopper correlate."""
        mean, ctr = arm.impressions / arm.shoppers, arm.ctr
        effect = arm.shopper_variance * mean / (ctr * (1 - ctr))
        size = arm.impressions_sq / arm.impressions  # slots of the shopper that a slot is shown to
        clustering = np.clip((effect - 1) / (size - 1), 0.0, 0.9)
        return cls(float(ctr), float(arm.impressions / arm.user_days), float(clustering))

    @property
    def design_effect(self) -> float:
        """How many times larger the CTR's variance is than if all slots were independent."""
        day, p = self.cells()
        ctr = (day.clicks @ p) / (day.impressions @ p)
        between = ((day.clicks - ctr * day.impressions) ** 2 @ p) / (day.impressions @ p)
        return float(between / (ctr * (1 - ctr)))

    def _click_chances(self, clicks: np.ndarray, impressions: np.ndarray, ctr: float) -> np.ndarray:
        if self.clustering == 0:
            return binom.pmf(clicks, impressions, ctr)
        concentration = 1.0 / self.clustering - 1.0
        return betabinom.pmf(clicks, impressions, ctr * concentration, (1 - ctr) * concentration)


@dataclass(frozen=True)
class Rehearsal:
    """How a step ends for a challenger whose true CTR is `drop` lower. Shares of all runs; medians of
    user-days of the canary until the verdict, None if no run got it."""

    percent: int
    planned: int
    drop: float
    rolled_back: float
    advanced: float
    undecided: float
    rollback_user_days: float | None
    advance_user_days: float | None


def rehearse(
    rng: np.random.Generator,
    shoppers: Shoppers,
    drop: float,
    step: Step,
    params: RolloutParams,
    runs: int = 400,
    horizon: float = 4.0,
    looks: int = 80,
) -> Rehearsal:
    """Run a step of two arms `runs` times, to `horizon` times its planned user-days, evenly spaced looks."""
    edges = np.linspace(0, step.user_days * horizon, looks + 1).round().astype(int)
    per_look = np.diff(edges)
    share = step.percent / 100
    canary = watched(rng, shoppers, drop, per_look, runs)
    champion = watched(rng, shoppers, 0.0, np.round(per_look * (1 - share) / share).astype(int), runs)
    judged = judge(canary, champion, step.user_days, params)
    down, up = first_true(judged.harmful), first_true(judged.harmless | judged.held)
    rolled_back, advanced = down < np.minimum(up, looks), up < np.minimum(down, looks)
    return Rehearsal(
        percent=step.percent,
        planned=step.user_days,
        drop=drop,
        rolled_back=float(rolled_back.mean()),
        advanced=float(advanced.mean()),
        undecided=float(1 - rolled_back.mean() - advanced.mean()),
        rollback_user_days=_median(edges[1:], down[rolled_back]),
        advance_user_days=_median(edges[1:], up[advanced]),
    )


def first_true(flags: np.ndarray) -> np.ndarray:
    """Index of the first True of each row, the row's length where there is none; (runs, looks) -> (runs,)."""
    return np.where(flags.any(axis=1), flags.argmax(axis=1), flags.shape[1])


def _median(user_days: np.ndarray, at: np.ndarray) -> float | None:
    return float(np.median(user_days[at])) if len(at) else None


def watched(
    rng: np.random.Generator, shoppers: Shoppers, drop: float, per_look: np.ndarray, runs: int
) -> ArmStatistics:
    """What an arm looks like at each look, fields of shape (runs, looks).

    `per_look` (looks,) int: user-days that are new since the look before.
    """
    day, probability = shoppers.cells(drop)
    cells = np.stack([day.clicks, day.impressions, day.clicks_sq, day.impressions_sq, day.cross], axis=1)
    often = int(np.searchsorted(np.cumsum(probability), COMMON)) + 1
    chances = np.append(probability[:often], probability[often:].sum())
    counts = rng.multinomial(per_look, chances, size=(runs, len(per_look)))  # (runs, looks, often + 1)
    sums = counts[..., :often].astype(float) @ cells[:often].astype(float)  # (runs, looks, 5)
    if often < len(cells):  # the rare kinds one by one: most of them are nobody's
        where = np.repeat(np.arange(runs * len(per_look)), counts[..., often].ravel())
        rare = rng.choice(cells[often:], size=len(where), p=probability[often:] / chances[-1])
        for field in range(cells.shape[1]):
            sums[..., field] += np.bincount(where, rare[:, field], sums[..., 0].size).reshape(sums.shape[:2])
    sums = np.cumsum(sums, axis=1)
    units = np.broadcast_to(np.cumsum(per_look), sums.shape[:2])
    return ArmStatistics(units, units, *np.moveaxis(sums, 2, 0))


COMMON = 0.97  # share of the user-days that are of the common kinds


def _geometric_rate(mean: float, support: np.ndarray) -> float:
    """Rate of the geometric distribution that has this mean once cut to the support (bisection)."""
    low, high = 1e-6, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        weights = geom.pmf(support, rate)
        low, high = (rate, high) if support @ weights / weights.sum() > mean else (low, rate)
    return rate
