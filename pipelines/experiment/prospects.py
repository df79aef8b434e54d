"""`endcap experiment plan`: visitors and days that an experiment takes, with the price of looking."""

from dataclasses import asdict
from typing import NamedTuple

import orjson

from feature_repo.errors import EndcapError, UnavailableError, shorten
from feature_repo.online.connection import connect
from feature_repo.params import load
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.guard import RolloutParams
from monitoring.experiment.tail import Tail
from monitoring.trials.outcomes import METRICS, Outcomes, of_all
from monitoring.trials.sizing import Spread, of_share, size, spread_of
from monitoring.trials.verdicts import Trials
from serving.flags import flag_versions
from serving.release.router import RouterParams

SHARES = ("add_to_cart_rate", "conversion")
EFFECT = 0.05


class PlanError(EndcapError):
    """What a plan cannot be made of."""


class Asked(NamedTuple):
    """The options of the command; None where none was given."""

    metric: str
    effect: float | None
    base: float | None
    spread: float | None
    visitors_per_day: float | None
    variants: int
    ramp: float | None


def run(asked: Asked, key: str, json_output: bool) -> int:
    """Print what the experiment `key`, or one that is only thought of, takes."""
    params, part = load("trials", Trials), (asked.ramp if asked.ramp is not None else 100.0) / 100
    if key:
        flag = flag_versions.read(connect()).flags().flag(key)
        part *= (flag.slice.end - flag.slice.begin) / 100 * (flag.ramp / 100 if asked.ramp is None else 1)
        asked = asked._replace(
            metric=flag.metric, variants=len(flag.variants), effect=asked.effect or flag.effect
        )
    if asked.metric not in METRICS:
        raise PlanError(f"--metric: {shorten(asked.metric)} is not allowed; allowed: {', '.join(METRICS)}")
    effect = EFFECT if asked.effect is None else asked.effect
    per_day = asked.visitors_per_day or load("rollout", RolloutParams).assumed.user_days_per_day
    for name, value in (("--effect", effect), ("--visitors-per-day", per_day), ("--ramp", part)):
        if not value > 0:
            raise PlanError(f"{name}: {value:g} is not allowed; allowed: a number above 0")
    found, source = _spread(asked)
    taking_part = part * (1 - load("router", RouterParams).holdout_share)
    needed = size(found, effect, asked.variants, taking_part, per_day, params)
    if json_output:
        told = {"metric": asked.metric, "effect": effect, "variants": asked.variants, "source": source}
        print(orjson.dumps(told | found._asdict() | asdict(needed)).decode())
        return 0
    print(f"{asked.metric.replace('_', ' ')} {found.value:.4g} ({source}), {METRICS[asked.metric]}")
    print(f"to find {effect:+.1%} with a chance of {params.power:.0%}, visitors per variant:")
    print(f"  one look, at the end     {needed.look:>12,.0f}")
    print(f"  looking at any time      {needed.any:>12,.0f}   {needed.price:.1f} times: the price of looking")
    if found.left < 1:
        print(f"  what is known from before leaves {found.left:.0%} of the variance; that is in it")
    print(
        f"{asked.variants} variants, {taking_part:.1%} of {per_day:,.0f} visitors a day: "
        f"{needed.days:,.1f} days"
    )
    return 0


def _spread(asked: Asked) -> tuple[Spread, str]:
    """As given, else as the logs have it."""
    if asked.base is not None:
        if not asked.base > 0 or (asked.metric in SHARES and asked.base >= 1):
            allowed = "above 0, below 1" if asked.metric in SHARES else "above 0"
            raise PlanError(f"--base: {asked.base:g} is not allowed; allowed: {allowed}")
        if asked.metric in SHARES:
            return of_share(asked.base), "as given"
        if asked.spread is None or not asked.spread > 0:
            raise PlanError(
                "--spread: needed beside --base for what is no share of visitors; allowed: above 0. "
                "Next: leave both out where a shop runs: the logs tell them"
            )
        return Spread(asked.base, asked.spread**2), "as given"
    outcomes = Outcomes(load("feedback", FeedbackParams))
    try:
        Tail(connect()).feed(outcomes)
        found = spread_of(outcomes.people(of_all, ["everybody"]).outcomes[asked.metric])
    except UnavailableError:
        found = None
    if found is None:
        raise PlanError(
            f"--base: the logs hold no {asked.metric.replace('_', ' ')} to plan with. "
            "Next: say what it is, `--base 0.03`"
        )
    return found, "measured in the logs"
