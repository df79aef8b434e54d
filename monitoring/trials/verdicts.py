"""What an experiment says at any look: an interval per variant and metric, and which differences are claimed.

The interval is the canary's confidence sequence (monitoring/experiment/sequential.py): it holds the truth at
all looks at once with probability 1 - alpha. Before it is made, what is known of a visitor from before the
experiment is taken out (CUPED: Deng, Xu, Kohavi and Walker, WSDM 2013).

Several metrics and variants are several chances to be wrong. Each comparison's evidence against "no
difference" is an e-value, the mixture behind the interval: an interval leaves 0 out exactly when it is over
1 / alpha. What is claimed goes by e-BH (Wang and Ramdas, JRSS-B 2022): of the claims a part of at most alpha
is wrong on average, whatever depends on what and whenever one looks; where nothing differs, any claim at all
comes with a chance of at most alpha.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from monitoring.experiment.sequential import ArmStatistics, compare, mixture_rho2, srm_evidence, width
from monitoring.trials.outcomes import Doubles, Outcome, People

UNKNOWN = float("inf")


@dataclass(frozen=True)
class Trials:
    """Section `trials` of params.yaml."""

    alpha: float  # of an interval, and of all that is claimed in an experiment
    power: float  # of a plan
    burn_in_visitors: int  # per variant, before the central limit theorem is trusted
    burn_in_events: int  # visitors per variant with any click, cart, purchase
    srm_alpha: float  # chance of crying sample ratio mismatch where there is none


@dataclass(frozen=True)
class Line:
    """A variant beside the control, in one metric; differences are relative to the control.

    `evidence`: the e-value. `narrowed`: the part of the variance that is left after CUPED, 1 without.
    `verdict`: better, worse, open; early before the burn-in, void where the split is not as asked.
    """

    variant: str
    metric: str
    value: float
    control: float
    estimate: float
    lower: float
    upper: float
    evidence: float
    narrowed: float
    verdict: str

    def told(self) -> dict[str, Any]:
        """For JSON, which knows no infinite number."""
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Results:
    """Of one look. `mismatch`: evidence that visitors do not split as asked; `void`: it is beyond belief."""

    visitors: Mapping[str, int]
    lines: tuple[Line, ...]
    mismatch: float
    void: bool
    suspects: int = 0
    crossed: int = 0

    def told(self) -> dict[str, Any]:
        return asdict(self) | {"lines": [line.told() for line in self.lines]}


def judge(people: People, shares: Mapping[str, float], effect: float, params: Trials) -> Results:
    """Every variant against the first, in every metric; `effect`: where an interval is to be tightest."""
    names = people.names
    counts = {name: int(np.count_nonzero(people.variant == at)) for at, name in enumerate(names)}
    mismatch = split_evidence(counts, shares)
    void = mismatch > 1 / params.srm_alpha
    lines = [
        _line(people, at, metric, outcome, effect, params)
        for metric, outcome in people.outcomes.items()
        for at in range(1, len(names))
    ]
    claimed = claims([line.evidence for line in lines], params.alpha)
    told = tuple(
        Line(**{**asdict(line), "verdict": _verdict(line, claim, void)})
        for line, claim in zip(lines, claimed, strict=True)
    )
    return Results(counts, told, mismatch, void, people.suspects, people.crossed)


def adjusted(outcome: Outcome) -> tuple[Doubles, float]:
    """`top` without what `before` foretells, and the part of the variance that is left.

    What is taken from all variants together has the mean 0, so that no comparison is moved by it.
    """
    ratio = outcome.top.sum() / max(outcome.base.sum(), 1e-12)
    residual = outcome.top - ratio * outcome.base
    known = outcome.before - outcome.before.mean() if len(residual) else outcome.before
    spread, whole = float(known @ known), float(residual @ residual)
    if spread <= 0 or whole <= 0:
        return outcome.top, 1.0
    theta = float(residual @ known) / spread
    left = residual - theta * known
    return outcome.top - theta * known, float(left @ left) / whole


def statistics(top: Doubles, base: Doubles) -> ArmStatistics:
    """Sums over visitors, (n,) each."""
    sums = float(top @ top), float(base @ base), float(top @ base)
    return ArmStatistics(len(top), len(top), float(top.sum()), float(base.sum()), *sums)


def evidence(estimate: float, error: float, rho2: float) -> float:
    """The e-value of a difference, both relative: over 1 / alpha exactly when the interval leaves 0 out.

    >>> round(evidence(0.0, 0.02, mixture_rho2(0.05, 0.02**-2)), 2), evidence(0.1, 0.02, 1e4) > 20
    (0.33, True)
    """
    t = error**-2
    scaled = t * rho2 + 1.0
    return float(np.exp(min(estimate**2 * t * t * rho2 / (2 * scaled), 700.0)) / np.sqrt(scaled))


def claims(evidences: Sequence[float], alpha: float) -> list[bool]:
    """e-BH: of m hypotheses the k of most evidence, k the most for which the k-th has at least m / (alpha k).

    >>> claims([90.0, 45.0, 1.0, 0.5], 0.05), claims([45.0, 1.0, 1.0, 0.5], 0.05)
    ([True, True, False, False], [False, False, False, False])
    """
    order = np.argsort(-np.array(evidences), kind="stable")
    m = len(evidences)
    enough = [k for k, at in enumerate(order, 1) if evidences[at] * k * alpha >= m]
    chosen = set(order[: max(enough, default=0)].tolist())
    return [at in chosen for at in range(m)]


def split_evidence(counts: Mapping[str, int], shares: Mapping[str, float]) -> float:
    """That visitors split otherwise than by `shares`: the mean of e-values is one, whatever they share."""
    total = sum(counts.values())
    open_ones = [(count, share) for name, count in counts.items() if 0 < (share := shares[name]) < 1]
    return float(np.mean([srm_evidence(count, total - count, share) for count, share in open_ones] or [1.0]))


def tightest(effect: float, alpha: float) -> float:
    """The relative standard error at which the interval is as wide as `effect` to either side."""
    return effect / float(width(1.0, mixture_rho2(alpha, 1.0), alpha))


def _line(people: People, at: int, metric: str, outcome: Outcome, effect: float, params: Trials) -> Line:
    top, narrowed = adjusted(outcome)
    mine, control = (people.variant == arm for arm in (at, 0))
    seen, base = (statistics(top[arm], outcome.base[arm]) for arm in (mine, control))
    raw = [outcome.top[arm].sum() / max(outcome.base[arm].sum(), 1) for arm in (mine, control)]
    few = min(np.count_nonzero(outcome.top[arm]) for arm in (mine, control)) < params.burn_in_events
    early = few or min(seen.shoppers, base.shoppers) < params.burn_in_visitors
    head = people.names[at], metric, float(raw[0]), float(raw[1])
    if early:
        return Line(*head, 0.0, -UNKNOWN, UNKNOWN, 1.0, narrowed, "early")
    error = tightest(effect, params.alpha)
    found = compare(seen, base, 0.0, params.alpha, error)
    e_value = evidence(found.estimate, found.error, mixture_rho2(params.alpha, error**-2))
    bounds = float(found.estimate), float(found.lower), float(found.upper)
    return Line(*head, *bounds, e_value, narrowed, "open")


def _verdict(line: Line, claimed: bool, void: bool) -> str:
    if line.verdict == "early" or not claimed:
        return line.verdict
    return "void" if void else "better" if line.estimate > 0 else "worse"
