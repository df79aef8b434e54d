"""What a canary costs at today's traffic: how each step ends, after how many days, for known drops."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter
from redis import Redis, RedisError

from feature_repo.clock import DAY_US, MINUTE_US
from feature_repo.errors import UnavailableError
from feature_repo.online.connection import connect
from feature_repo.params import load
from feature_repo.picture import Figure
from feature_repo.terminal import progress
from monitoring.experiment.attribution import Feedback, FeedbackParams
from monitoring.experiment.guard import RolloutParams, Step, Traffic
from monitoring.experiment.rehearsal import Shoppers, rehearse, watched
from monitoring.experiment.sequential import compare, price_of_looking
from monitoring.experiment.tail import Tail
from serving.release.router import CHALLENGER, CHAMPION, HOLDOUT, RouterParams

DROPS = (-0.05, 0.0, 0.03, 0.05, 0.10, 0.20, 0.30)
SEED = 20240601
Line = dict[str, Any]


def plan(
    traffic: Traffic,
    params: RolloutParams,
    holdout_share: float,
    rng: np.random.Generator,
    runs: int = 400,
    drops: tuple[float, ...] = DROPS,
) -> list[Line]:
    """One line per step of two arms and true drop (0.03 = 3 % fewer clicks; negative = more clicks).

    A line has the fields of Rehearsal, planned_days, and for rollback and advance days and served slots of
    the canary until then; None where no run got the verdict.
    """
    shoppers = Shoppers(traffic.ctr, traffic.impressions, traffic.clustering)
    cases = [(step, drop) for step in params.steps if step.percent < 100 for drop in drops]
    lines = []
    for step, drop in progress(cases, desc="rehearsing", leave=False):
        line = asdict(rehearse(rng, shoppers, drop, step, params, runs))
        per_day = traffic.user_days_per_day * (1 - holdout_share) * step.percent / 100  # of the canary
        for verdict in ("rollback", "advance"):
            user_days = line[f"{verdict}_user_days"]
            line[f"{verdict}_days"] = user_days and user_days / per_day
            line[f"{verdict}_exposures"] = user_days and user_days * traffic.impressions
        lines.append(line | {"planned_days": line["planned"] / per_day})
    return lines


def measured(redis: Redis, params: RolloutParams, feedback_params: FeedbackParams) -> Traffic | None:
    """Traffic of the exposure stream; None if it holds less than the guard's burn-in or no whole minute."""
    feedback = Feedback(feedback_params)
    Tail(redis).feed(feedback)
    arms = [feedback.statistics(arm) for arm in (CHAMPION, CHALLENGER, HOLDOUT)]
    together = arms[0] + arms[1]
    elapsed = feedback.watermark - feedback.first
    burnt_in = together.shoppers >= params.burn_in_shoppers and together.clicks >= params.burn_in_clicks
    if not burnt_in or elapsed < MINUTE_US:
        return None
    seen = Shoppers.measured(together)
    # Shoppers come back within a day: a stretch shorter than a day counts as the day it is a part of.
    days = max(elapsed / DAY_US, 1.0)
    return Traffic(sum(arm.user_days for arm in arms) / days, seen.ctr, seen.impressions, seen.clustering)


def run(
    given: Mapping[str, float | None],
    params: RolloutParams,
    runs: int,
    picture: Path | None,
    say: Callable[[str, Any], None],
) -> int:
    """Print the plan; what is not given is measured in the exposure stream, else assumed (params.yaml)."""
    traffic, source = params.assumed, "assumed (params.yaml)"
    if any(value is None for value in given.values()):
        try:
            found = measured(connect(), params, load("feedback", FeedbackParams))
        except (UnavailableError, RedisError):
            found = None
        if found:
            traffic, source = found, "measured in the exposure stream"
    traffic = replace(traffic, **{name: value for name, value in given.items() if value is not None})
    shoppers = Shoppers(traffic.ctr, traffic.impressions, traffic.clustering)
    say(
        f"traffic: {traffic.user_days_per_day:,.0f} user-days a day, {traffic.impressions:.1f} slots each, "
        f"CTR {traffic.ctr:.2%}, clustering {traffic.clustering:.3f} (variance {shoppers.design_effect:.1f} "
        f"times that of independent slots); what was not given is {source}",
        {"traffic": asdict(traffic), "source": source, "design_effect": shoppers.design_effect},
    )
    price = price_of_looking(params.alpha_per_step)
    say(
        f"the price of looking at any time: an interval as narrow takes {price:.1f} times the traffic of a "
        "single look; the days below hold it",
        {"price_of_looking": price},
    )
    rng = np.random.default_rng(SEED)
    lines = plan(traffic, params, load("router", RouterParams).holdout_share, rng, runs)
    say(HEADER, {"runs": runs, "seed": SEED})
    for line in lines:
        say(_row(line), line)
    if picture:
        draw(lines, shoppers, params, rng).savefig(picture)
        say(f"drawn: {picture}", {"picture": str(picture)})
    return 0


HEADER = "step   planned for  true change   rolled back (after)  advanced (after)   undecided"


def _row(line: Line) -> str:
    back, ahead = (
        f"({line[f'{verdict}_days']:.1f} d)" if line[f"{verdict}_user_days"] else ""
        for verdict in ("rollback", "advance")
    )
    return (
        f"{line['percent']:>3} % {line['planned_days']:>11.1f} d {_change(line['drop']):>12}   "
        f"{line['rolled_back']:>9.1%} {back:>9}  {line['advanced']:>7.1%} {ahead:>8}   "
        f"{line['undecided']:>9.1%}"
    )


def draw(lines: list[Line], shoppers: Shoppers, params: RolloutParams, rng: np.random.Generator) -> Figure:
    """Left: three canaries as the guard sees them. Then one panel per step: how it ends, by true change."""
    steps = [step for step in params.steps if step.percent < 100]
    figure = Figure(figsize=(5.2 * (1 + len(steps)), 4.2), layout="constrained")
    axes = figure.subplots(1, 1 + len(steps))
    _draw_canaries(axes[0], steps[0], shoppers, params, rng)
    for panel, step in zip(axes[1:], steps, strict=True):
        rows = [line for line in lines if line["percent"] == step.percent]
        labels = [_change(row["drop"]) for row in rows]
        bottom = np.zeros(len(rows))
        for name, colour in (("advanced", "#3a7d44"), ("undecided", "#c9c9c9"), ("rolled_back", "#b23a48")):
            share = np.array([row[name] for row in rows])
            panel.bar(labels, share, bottom=bottom, color=colour, label=name.replace("_", " "))
            bottom += share
        panel.set(
            title=f"Verdicts at {step.percent} %", xlabel="true change of CTR", ylabel="share of rehearsals"
        )
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def _draw_canaries(
    panel: Any, step: Step, shoppers: Shoppers, params: RolloutParams, rng: np.random.Generator
) -> None:
    looks = 120
    per_look = np.full(looks, max(1, step.user_days // looks))
    others = (per_look * (100 - step.percent) / step.percent).astype(int)
    champion = watched(rng, shoppers, 0.0, others, runs=1)
    user_days = np.cumsum(per_look)
    for drop, colour in ((0.0, "#3a7d44"), (0.10, "#d08c2e"), (0.30, "#b23a48")):
        canary = watched(rng, shoppers, drop, per_look, runs=1)
        seen = compare(canary, champion, params.margin, params.alpha_per_step, params.tightest_error)
        panel.fill_between(user_days, seen.lower[0], seen.upper[0], color=colour, alpha=0.2, linewidth=0)
        panel.plot(user_days, seen.estimate[0], color=colour, label=f"truly {_change(drop)}")
    panel.axhline(-params.margin, color="black", linewidth=1, linestyle="--", label="margin")
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.set(
        title=f"Three canaries at {step.percent} %",
        xlabel="user-days of the canary",
        ylabel="relative CTR difference",
        ylim=(-0.6, 0.6),
    )
    panel.legend(loc="upper right")


def _change(drop: float) -> str:
    """A true drop as the change that it is: 0.03 -> "-3%"."""
    return f"{-drop:+.0%}" if drop else "0%"
