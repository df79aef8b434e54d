"""What interleaved lists say of two releases: whose slots are clicked, at any look.

    preference = (clicks of the challenger - clicks of the champion) / (clicks of both)    -1 .. 1

A shopper's clicks come together, so the variance is taken between shoppers: d is a shopper's difference.
Where neither list is the better one for anybody, the draft's coins make every d as likely as -d, and then

    e = exp(rho^2 S^2 / (2 (1 + rho^2 V))) / sqrt(1 + rho^2 V)      S = sum d, V = sum d^2

is an e-value for any number of shoppers, whatever d is (de la Pena, Annals of Probability 1999): over
1 / alpha at any look with a chance of at most alpha. Where some like the one and some the other and neither
is better on average, it is one as their number grows. It is the mixture of
monitoring/experiment/sequential.py with V as its time, and the interval holds what it leaves open.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from monitoring.experiment.sequential import Number, mixture_rho2, width
from monitoring.experiment.tail import Exposure
from monitoring.experiment.visitors import Belief
from monitoring.trials.verdicts import Trials, evidence, tightest
from serving.beside.draft import FIRST, NOBODY, SECOND

TEAMS = FIRST, SECOND, NOBODY


@dataclass(frozen=True)
class Clicks:
    """Sums over shoppers, or an array of them per simulated run: of both teams' clicks, their difference
    (challenger less champion) and its square, and how many have clicked on either."""

    both: Number = 0
    difference: Number = 0
    squares: Number = 0
    shoppers: Number = 0


@dataclass(frozen=True)
class Preference:
    """One look. `nobodys`: clicks on slots that belong to no team; `suspects`: left out, they click too much.

    `verdict`: challenger or champion, whose slots are credibly preferred; open; early before the burn-in.
    """

    champion: str
    challenger: str
    lists: int
    shoppers: int
    clicks: tuple[int, int]
    nobodys: int
    suspects: int
    estimate: float
    lower: float
    upper: float
    evidence: float
    verdict: str
    first: int = 0  # arrival of its first and last list in the logs, us
    last: int = 0


def bounds(clicks: Clicks, preference: float, alpha: float) -> tuple[Number, Number, Number]:
    """Estimate and bounds at any look; tightest where `preference` is just found.

    >>> [round(float(edge), 2) for edge in bounds(Clicks(400, 100, 500, 300), 0.1, 0.05)]
    [0.25, 0.05, 0.45]
    """
    time = np.maximum(clicks.squares, 1)
    both = np.maximum(clicks.both, 1)
    half = time * width(time, rho2_of(preference, alpha), alpha) / both
    estimate = clicks.difference / both
    return estimate, np.maximum(estimate - half, -1.0), np.minimum(estimate + half, 1.0)


def rho2_of(preference: float, alpha: float) -> float:
    return mixture_rho2(alpha, tightest(preference, alpha) ** -2)


def judge(
    shown: Iterable[Exposure],
    champion: str,
    challenger: str,
    preference: float,
    belief: Belief,
    params: Trials,
) -> Preference:
    """Of the lists that `champion` and `challenger` (digests) made together."""
    told: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])  # shopper -> clicks by team, slots
    lists = first = last = 0
    for one in shown:
        if (one.bundle, one.rival) != (champion, challenger) or one.unit is None:
            continue
        lists, first, last = lists + 1, first or one.at, max(last, one.at)
        counts = told[one.unit]
        counts[3] += len(one.items)
        for item in one.outcomes:
            counts[TEAMS.index(one.teams[one.items.index(item)])] += 1
    believed = [c for c in told.values() if sum(c[:3]) <= max(belief.most_clicks, belief.most_ctr * c[3])]
    a, b, nobodys, _ = np.array(believed, np.int64).reshape(-1, 4).T
    d = b - a
    clicks = Clicks(int((a + b).sum()), int(d.sum()), int(d @ d), int(np.count_nonzero(a + b)))
    estimate, lower, upper = bounds(clicks, preference, params.alpha)
    found = 1.0
    if clicks.squares:
        mean, error = clicks.difference / clicks.squares, clicks.squares**-0.5
        found = evidence(mean, error, rho2_of(preference, params.alpha))
    early = clicks.shoppers < params.burn_in_events
    better = "challenger" if clicks.difference > 0 else "champion"
    verdict = "early" if early else better if found > 1 / params.alpha else "open"
    return Preference(
        champion,
        challenger,
        lists,
        len(believed),
        (int(a.sum()), int(b.sum())),
        int(nobodys.sum()),
        len(told) - len(believed),
        *(float(estimate), float(lower), float(upper), found, verdict, first, last),
    )
