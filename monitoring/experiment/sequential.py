"""An always-valid comparison of two arms' click-through rates: look as often as you like.

Clicks of one person come together, today and when she is back tomorrow. So her clicks x and impressions n are
added up first, and the variance is taken between shoppers, of the residuals x - CTR * n (the delta method for
a ratio of means). How long a step holds is counted in user-days. The interval is the asymptotic confidence
sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic
confidence sequences" (Annals of Statistics 2024, arXiv:2103.06476): with probability 1 - alpha it holds the
truth at *all* looks at once.

Every function takes numbers or arrays of numbers, so that the simulation that proves the error rates
(monitoring/experiment/rehearsal.py) runs the code that decides.
"""

from dataclasses import dataclass
from operator import add, sub
from typing import Any, Self

import numpy as np
from scipy.special import betaln, lambertw, ndtri, xlogy

# A float, or an array of one value per simulated run; numpy treats both alike.
Number = Any


@dataclass(frozen=True)
class ArmStatistics:
    """Sums over the shoppers of one arm; the statistics of different shoppers add with `+`.

    `user_days` counts a shopper once for every day with an exposure; the squares are of a shopper's totals.

    >>> both = ArmStatistics.of(clicks=1, impressions=12) + ArmStatistics.of(clicks=0, impressions=24)
    >>> both.shoppers, both.clicks, both.impressions, both.impressions_sq, both.cross
    (2, 1, 36, 720, 12)
    """

    user_days: Number = 0
    shoppers: Number = 0
    clicks: Number = 0
    impressions: Number = 0
    clicks_sq: Number = 0
    impressions_sq: Number = 0
    cross: Number = 0

    @classmethod
    def of(cls, clicks: Number, impressions: Number, user_days: Number = 1) -> Self:
        """One shopper."""
        return cls(user_days, 1, clicks, impressions, clicks**2, impressions**2, clicks * impressions)

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(add, vars(self).values(), vars(other).values()))

    def __sub__(self, other: Self) -> Self:
        return type(self)(*map(sub, vars(self).values(), vars(other).values()))

    @property
    def ctr(self) -> Number:
        """Clicks per impression; 0 before the first impression."""
        return self.clicks / np.maximum(self.impressions, 1)

    @property
    def shopper_variance(self) -> Number:
        """What one shopper adds to the CTR's variance: var(x - ctr n) / mean(n)^2. NaN below two shoppers."""
        shoppers, ctr = np.asarray(self.shoppers, float), self.ctr
        residual_sq = self.clicks_sq - 2 * ctr * self.cross + ctr**2 * self.impressions_sq
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = residual_sq / (shoppers - 1) / (self.impressions / shoppers) ** 2
            return np.where(shoppers > 1, variance, np.nan)[()]


@dataclass(frozen=True)
class Interval:
    """Relative difference of the canary's CTR from the champion's (-0.03: 3 % fewer clicks), and its bounds.

    `error` is the standard error of the difference, relative to the champion's CTR. An interval that the data
    cannot bound yet is (-inf, inf).
    """

    estimate: Number
    lower: Number
    upper: Number
    error: Number


def mixture_rho2(alpha: float, tightest_at: float) -> float:
    """rho^2 that makes the sequence tightest at intrinsic time `tightest_at`.

    Minimising `width` over rho^2 at t gives log((1 + y) / alpha^2) = y for y = t rho^2, hence
    y = -W_{-1}(-alpha^2 / e) - 1 with the lower branch of Lambert's W.

    >>> round(mixture_rho2(alpha=0.05, tightest_at=1.0), 4)
    8.212
    """
    return float(-lambertw(-(alpha**2) / np.e, k=-1).real - 1.0) / tightest_at


def width(t: Number, rho2: Number, alpha: float) -> Number:
    """Half-width of the two-sided confidence sequence of a mean after t observations of variance 1.

    sqrt( 2 (t rho^2 + 1) / (t^2 rho^2) * log( sqrt(t rho^2 + 1) / alpha ) ), the cited paper's boundary by
    a Gaussian mixture (Robbins' normal mixture).

    >>> round(float(width(10, rho2=0.1, alpha=0.05)), 5)
    1.15625
    """
    scaled = t * rho2 + 1.0
    return np.sqrt(2.0 * scaled / (t * t * rho2) * np.log(np.sqrt(scaled) / alpha))


def price_of_looking(alpha: float) -> float:
    """How many times the traffic of an interval for one look the sequence needs to be as narrow, at its best.

    >>> round(price_of_looking(0.05), 1)
    2.4
    """
    return float((width(1.0, mixture_rho2(alpha, 1.0), alpha) / ndtri(alpha / 2)) ** 2)


def compare(
    canary: ArmStatistics, champion: ArmStatistics, margin: float, alpha: float, tightest_error: float
) -> Interval:
    """Confidence sequence of CTR_canary / CTR_champion - 1.

    Tests delta = CTR_canary - (1 - margin) CTR_champion. Its intrinsic time is its information,
    t = (CTR_champion / standard error)^2, not a count of shoppers: with clustered clicks an experiment is
    younger than its count. It is tightest when the relative standard error is `tightest_error`. The bounds
    are Fieller's: the values r for which delta with r in the place of -margin is not further from 0 than the
    width allows. So -margin is outside the bounds exactly when delta differs from 0.

    The canary's variance is never taken smaller than the champion's: an arm with few clicks by bad luck also
    has a small variance estimate, which would make the bad luck look certain.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        base = np.asarray(champion.ctr, float)
        per_shopper = np.maximum(canary.shopper_variance, champion.shopper_variance)
        var_canary = per_shopper / canary.shoppers
        var_champion = champion.shopper_variance / champion.shoppers
        variance = var_canary + (1 - margin) ** 2 * var_champion
        t = base**2 / variance
        errors = np.sqrt(t) * width(t, mixture_rho2(alpha, tightest_error**-2), alpha)
        lower, upper = _fieller(canary.ctr, base, errors**2 * var_canary, errors**2 * var_champion)
        estimate = np.where(base > 0, canary.ctr / base - 1.0, 0.0)
        return Interval(estimate[()], lower[()], upper[()], (1 / np.sqrt(t))[()])


def srm_evidence(canary: Number, champion: Number, share: float) -> Number:
    """How much likelier the split of shoppers is under some other share than the one asked for: an e-value.

    `canary` and `champion` count shoppers; `share` is the canary's part of them, inside (0, 1). Under the
    right share it exceeds 1 / a at any look with probability at most a, so it may be watched. Beta-binomial
    against binomial, the prior worth CONCENTRATION shoppers: Lindon and Malek, "Anytime-valid inference for
    multinomial count data" (NeurIPS 2022). Capped at e^700.

    >>> round(float(srm_evidence(10, 90, share=0.1)), 2), bool(srm_evidence(60, 40, share=0.1) > 1e4)
    (0.95, True)
    """
    a, b = share * CONCENTRATION, (1 - share) * CONCENTRATION
    log_odds = (
        betaln(a + canary, b + champion) - betaln(a, b) - xlogy(canary, share) - xlogy(champion, 1 - share)
    )
    return np.exp(np.minimum(log_odds, 700.0))


# Small enough to grow fast on a gross mismatch, large enough to see a share that is a few per cent off.
CONCENTRATION = 1000.0


def _fieller(top: Number, base: Number, width_top: Number, width_base: Number) -> tuple[Number, Number]:
    """Roots r of (top - (1 + r) base)^2 = width_top + (1 + r)^2 width_base; (-inf, inf) if there are none."""
    a = base**2 - width_base
    root = np.sqrt(np.maximum((top * base) ** 2 - a * (top**2 - width_top), 0.0))
    bounded = np.isfinite(a) & np.isfinite(width_top) & (a > 0)
    lower = np.where(bounded, (top * base - root) / a - 1.0, -np.inf)
    upper = np.where(bounded, (top * base + root) / a - 1.0, np.inf)
    return lower, upper
