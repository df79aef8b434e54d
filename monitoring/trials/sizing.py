"""What an experiment takes: visitors per variant and days, for one look and for looking at any time."""

from dataclasses import dataclass
from typing import NamedTuple

from scipy.special import ndtri

from monitoring.experiment.sequential import price_of_looking
from monitoring.trials.outcomes import Outcome
from monitoring.trials.verdicts import Trials, adjusted, statistics


class Spread(NamedTuple):
    """A metric as it is: its value, and the variance between visitors relative to its square.

    `left`: the part of that variance which CUPED leaves, 1 where nothing is known from before.
    """

    value: float
    relative_variance: float
    left: float = 1.0


@dataclass(frozen=True)
class Size:
    """Per variant; `look`: where the data is looked at once, at the end; `any`: whenever one likes."""

    look: float
    any: float
    price: float
    days: float


def spread_of(outcome: Outcome) -> Spread | None:
    """As the visitors of a log have it; None where they have none of it."""
    if len(outcome.top) < 2 or not outcome.top.any():
        return None
    found = statistics(outcome.top, outcome.base)
    _, left = adjusted(outcome)
    return Spread(float(found.ctr), float(found.shopper_variance / found.ctr**2), left)


def of_share(rate: float) -> Spread:
    """A visitor does it or does not.

    >>> of_share(0.04).relative_variance
    24.0
    """
    return Spread(rate, (1 - rate) / rate)


def size(
    spread: Spread, effect: float, variants: int, taking_part: float, per_day: float, params: Trials
) -> Size:
    """To find a relative `effect` with the power of `params`, all variants of one weight.

    `taking_part`: the share of the `per_day` visitors who are in the experiment. alpha is shared out over the
    comparisons with the control. Looking at any time costs `price` times the visitors of one look.

    >>> some = Trials(alpha=0.05, power=0.8, burn_in_visitors=100, burn_in_events=25, srm_alpha=0.0001)
    >>> found = size(of_share(0.05), 0.1, 2, 1.0, 10_000, some)
    >>> round(found.look), round(found.any), round(found.days, 1)
    (29826, 71523, 14.3)
    """
    alpha = params.alpha / (variants - 1)
    reach = float(ndtri(params.power) - ndtri(alpha / 2))
    look = reach**2 * 2 * spread.relative_variance * spread.left / effect**2
    price = price_of_looking(alpha)
    return Size(look, look * price, price, look * price * variants / (per_day * taking_part))
