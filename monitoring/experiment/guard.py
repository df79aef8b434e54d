"""The guard of a canary: ADVANCE, HOLD or ROLLBACK, with numbers and a reason (policy: docs/rollout.md).

A step of 100 % has no champion to compare with: there only the hard switches can roll back.
"""

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np

from feature_repo.errors import ParamsError
from monitoring.experiment.alarms import Alarms, Arm, alarm
from monitoring.experiment.sequential import ArmStatistics, Interval, Number, compare, srm_evidence
from monitoring.experiment.visitors import Crowd
from serving.release.router import CHALLENGER, CHAMPION
from serving.release.state import Health

SAYS_NOTHING = 0.5  # relative difference that an interval must exclude on one side


class Move(Enum):
    """What the guard does with the canary."""

    ADVANCE = "ADVANCE"
    HOLD = "HOLD"
    ROLLBACK = "ROLLBACK"


@dataclass(frozen=True)
class Step:
    """A share of the shoppers, and how many of the canary's user-days it is planned to hold."""

    percent: int
    user_days: int


@dataclass(frozen=True)
class Switches:
    """Hard switches: they roll back without waiting for clicks."""

    error_rate: float
    empty_rate: float
    min_failures: int
    p99_ms: float
    p99_ratio: float
    strikes: int
    srm_alpha: float


@dataclass(frozen=True)
class Traffic:
    """What a shop's days look like; see monitoring/experiment/rehearsal.py."""

    user_days_per_day: float
    ctr: float
    impressions: float
    clustering: float


@dataclass(frozen=True)
class RolloutParams:
    """Section `rollout` of params.yaml, where each key is explained."""

    steps: tuple[Step, ...]
    margin: float
    alpha: float
    harm_sign: float
    tightest_error: float
    burn_in_shoppers: int
    burn_in_clicks: float
    guard_timeout_s: float
    switches: Switches
    alarms: Alarms
    assumed: Traffic

    def __post_init__(self) -> None:
        percents = [step.percent for step in self.steps]
        if percents != sorted(set(percents)) or not percents or percents[0] < 1 or percents[-1] != 100:
            raise ParamsError(
                f"rollout.steps: percents {percents} are not allowed; allowed: rising, the last 100"
            )

    @property
    def alpha_per_step(self) -> float:
        """The whole rollout's error rate, shared out over the steps that compare two arms."""
        return self.alpha / max(1, sum(step.percent < 100 for step in self.steps))


@dataclass(frozen=True)
class Judgement:
    """What the clicks say. Booleans, or arrays of them: one per simulated run."""

    interval: Interval
    harmful: Number  # the drop is credibly larger than the margin
    harmless: Number  # a drop larger than the margin is excluded
    held: Number  # the planned user-days are there and the estimate is no sign of harm


@dataclass(frozen=True)
class Decision:
    """One look: the move, why, and every number it rests on. CTRs are clicks per served slot."""

    move: Move
    reason: str
    percent: int
    user_days: int
    champion_user_days: int
    planned: int
    ctr: float
    champion_ctr: float
    estimate: float
    lower: float
    upper: float
    alpha: float
    srm_evidence: float
    alarm: str = ""  # why the clicks decide nothing

    def numbers(self) -> dict[str, Any]:
        """For the audit and the looks; an unbounded limit becomes None."""
        values = asdict(self) | {"verdict": self.move.value, "too_early": self.too_early}
        del values["move"]
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}

    @property
    def too_early(self) -> bool:
        """Whether the interval says nothing yet: half and one and a half of the champion's CTR are in it."""
        return self.percent < 100 and not (self.lower > -SAYS_NOTHING or self.upper < SAYS_NOTHING)

    def comparison(self) -> str:
        """Both CTRs, and how far apart: "CTR 5.10% vs 4.80%, +6.2% [-3.1%, +16.0%]"."""
        if self.percent == 100:
            return f"CTR {self.ctr:.2%}"
        low = max(self.lower, -1.0)  # Fieller's bound does not know that a CTR ends at 0
        told = f"{self.estimate:+.1%} [{low:+.1%}, {self.upper:+.1%}]"
        return (
            f"CTR {self.ctr:.2%} vs {self.champion_ctr:.2%}, {'too early to say' if self.too_early else told}"
        )

    def line(self) -> str:
        """The look in plain words, on one line."""
        head = f"canary {self.percent} %: {self.user_days:,} user-days, {self.comparison()}"
        return f"{head}: {self.move.value}, {self.reason}"


def judge(canary: ArmStatistics, champion: ArmStatistics, planned: int, params: RolloutParams) -> Judgement:
    """What the clicks of a step with two arms say, at any number of looks."""
    interval = compare(canary, champion, params.margin, params.alpha_per_step, params.tightest_error)
    ready = burnt_in(canary, champion, params)
    harmful = ready & (interval.upper < -params.margin)
    harmless = ready & (interval.lower > -params.margin)
    held = ready & ~harmful & (canary.user_days >= planned) & (interval.estimate >= -params.harm_sign)
    return Judgement(interval, harmful, harmless, held)


def burnt_in(canary: ArmStatistics, champion: ArmStatistics, params: RolloutParams) -> Number:
    """Whether there is enough for the central limit theorem: before that nothing is judged.

    Both arms have `burn_in_shoppers`, the champion has `burn_in_clicks`, and the canary has had the
    impressions to get as many. (Not: has got as many. A canary that nobody clicks must not be safe.)
    """
    return (
        (np.minimum(canary.shoppers, champion.shoppers) >= params.burn_in_shoppers)
        & (champion.clicks >= params.burn_in_clicks)
        & (canary.impressions * champion.ctr >= params.burn_in_clicks)
    )


def decide(
    step: Step,
    canary: ArmStatistics,
    champion: ArmStatistics,
    health: Health,
    champion_health: Health,
    slow_looks: int,
    params: RolloutParams,
    canary_crowd: Crowd | None = None,
    champion_crowd: Crowd | None = None,
) -> Decision:
    """One look at a step. `slow_looks`: how many looks in a row `is_slow` was true, this one included.

    Hard switches come first, then alarms, then the clicks; what none decides is HOLD. Without crowds every
    shopper is taken for one who was first seen in this step and of whom an event came.
    """
    planned, switches = step.user_days, params.switches
    compared = step.percent < 100
    evidence = proven = 1.0
    interval = Interval(0.0, -np.inf, np.inf, np.inf)
    crowds = canary_crowd or _all_visit(canary), champion_crowd or _all_visit(champion)
    if compared:
        mine, others = crowds
        share = step.percent / 100
        evidence = float(srm_evidence(mine.fresh, others.fresh, share))
        proven = float(srm_evidence(mine.visiting, others.visiting, share))
        judgement = judge(canary, champion, planned, params)
        interval = judgement.interval
    arms = Arm(CHALLENGER, canary, crowds[0]), Arm(CHAMPION, champion, crowds[1])
    told = alarm(arms, evidence if proven < evidence else 1.0, 1 / switches.srm_alpha, params.alarms)
    if trip := _tripped(health, champion_health, slow_looks, min(evidence, proven), switches):
        move, reason = Move.ROLLBACK, trip
    elif told:
        move, reason = Move.HOLD, f"alarm: {told}; clicks decide nothing"
    elif compared:
        move, reason = _by_clicks(judgement, canary.user_days, planned, f"{params.margin:.0%}")
    elif canary.user_days < planned:
        move, reason = Move.HOLD, f"{planned - canary.user_days:,} user-days to go"
    else:
        move, reason = Move.ADVANCE, f"healthy over {planned:,} user-days"
    return Decision(
        move=move,
        reason=reason,
        percent=step.percent,
        user_days=int(canary.user_days),
        champion_user_days=int(champion.user_days),
        planned=planned,
        ctr=float(canary.ctr),
        champion_ctr=float(champion.ctr),
        estimate=float(interval.estimate),
        lower=float(interval.lower),
        upper=float(interval.upper),
        alpha=params.alpha_per_step,
        srm_evidence=evidence,
        alarm=told,
    )


def _all_visit(arm: ArmStatistics) -> Crowd:
    return Crowd(fresh=int(arm.shoppers), visiting=int(arm.shoppers))


def is_slow(health: Health, champion_health: Health, switches: Switches) -> bool:
    """The canary's p99 is over its limit and not just because the whole machine is slow."""
    return health.p99_ms > max(switches.p99_ms, switches.p99_ratio * champion_health.p99_ms)


def _by_clicks(judgement: Judgement, user_days: Number, planned: int, margin: str) -> tuple[Move, str]:
    if judgement.harmful:
        return Move.ROLLBACK, f"CTR is credibly down by more than {margin}"
    if judgement.harmless:
        return Move.ADVANCE, f"a drop over {margin} is excluded"
    if judgement.held:
        return Move.ADVANCE, f"held its {planned:,} user-days with no sign of harm"
    if user_days < planned:
        return Move.HOLD, f"{planned - user_days:,} user-days to go"
    over = f"over its {planned:,} user-days"
    return Move.HOLD, f"{over}, but the estimate is a sign of harm or not there yet"


def _tripped(
    health: Health, champion: Health, slow_looks: int, evidence: float, switches: Switches
) -> str | None:
    """The first hard switch that is tripped, in words."""
    for name, count, rate in (
        ("errors", health.errors, switches.error_rate),
        ("empty answers", health.empty, switches.empty_rate),
    ):
        if count > max(switches.min_failures, rate * health.requests):
            return f"{count:,} {name} in {health.requests:,} requests (limit {rate:.1%})"
    if slow_looks >= switches.strikes:
        return (
            f"p99 {health.p99_ms:.1f} ms against {champion.p99_ms:.1f} ms of the champion, "
            f"{slow_looks} looks in a row (limit {switches.p99_ms:.1f} ms)"
        )
    if evidence > 1 / switches.srm_alpha:
        return f"sample ratio mismatch: shoppers do not split as asked (evidence {evidence:.0f} : 1)"
    return None
