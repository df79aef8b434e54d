"""How often the guard of a canary errs, and how long it takes: whole rollouts with a known true drop.

    python benchmarks/guard.py [--runs 10000] [--picture docs/guard.png] [--json FILE]

Every run is a rollout: the first step, and if that advances, the second, each with statistics of its own and
a look after every batch of user-days. What decides is `judge` of monitoring/experiment/guard.py, under the
section `rollout` of params.yaml. Beside it, on the same draws and from the same burn-in on, what others do at
each look until the step has its planned user-days, and then advance:

    naive          roll back where the estimated CTR is more than 3 % down
    z, slots       roll back where a one-sided 5 % z-test says that it is down; each slot is an observation
    z, shoppers    the same with the variance taken between shoppers

Who comes is in benchmarks/crowds.py; the same champions stand against every drop.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from crowds import Crowd, Regulars, Strangers
from scipy.stats import norm

from feature_repo.files import write_json
from feature_repo.params import load
from feature_repo.picture import Figure
from monitoring.experiment.guard import RolloutParams, burnt_in, judge
from monitoring.experiment.rehearsal import first_true
from monitoring.experiment.sequential import ArmStatistics

Flags = npt.NDArray[np.bool_]
DROPS = (0.0, 0.03, 0.05, 0.10, 0.30)
CTRS = (0.01, 0.02, 0.05)
CLUSTERING = 0.1
CHUNK = 250  # runs at a time: memory
ALPHA, POWER = 0.05, 0.8
SEED = 20240602
RULES = ("guard", "naive", "z, slots", "z, shoppers")


CASES: tuple[tuple[Crowd, tuple[float, ...]], ...] = (
    *((Strangers(ctr, CLUSTERING), DROPS) for ctr in CTRS),
    *((Strangers(ctr, 0.0), DROPS) for ctr in CTRS),
    (Regulars(CTRS[-1], CLUSTERING), (0.0, 0.03, 0.10)),
)


class Rule:
    """How a rule ends the rollouts that it is asked about, step after step; arrays of shape (runs,)."""

    def __init__(self, runs: int) -> None:
        self.going = np.ones(runs, np.bool_)
        self.rolled_back = np.zeros(runs, np.bool_)
        self.user_days, self.impressions = np.zeros(runs), np.zeros(runs)

    def step(self, down: Flags, up: Flags, canary: ArmStatistics) -> None:
        """Flags (runs, looks): it would roll back, it would advance; the first look of either decides."""
        looks = down.shape[1]
        back, ahead = first_true(down), first_true(up)
        at = np.minimum(np.minimum(back, ahead), looks - 1)
        for name in ("user_days", "impressions"):
            seen = np.take_along_axis(getattr(canary, name), at[:, None], axis=1)[:, 0]
            getattr(self, name)[self.going] += seen[self.going]
        self.rolled_back |= self.going & (back <= ahead) & (back < looks)
        self.going &= ahead < back


def flags(
    canary: ArmStatistics, champion: ArmStatistics, planned: Any, params: RolloutParams
) -> dict[str, tuple[Flags, Flags]]:
    """Rule -> (would roll back, would advance) at each look; `planned` user-days, one or (runs, 1)."""
    judged, ready = judge(canary, champion, planned, params), burnt_in(canary, champion, params)
    full = canary.user_days >= planned
    until = ready & (first_true(full)[:, None] >= np.arange(full.shape[1]))
    done = ready & full
    low = norm.ppf(ALPHA)
    tests = {
        "naive": judged.interval.estimate < -params.margin,
        "z, slots": z_score(canary, champion, 1.0, shoppers=False) < low,
        "z, shoppers": z_score(canary, champion, 1.0, shoppers=True) < low,
    }
    guard = judged.harmful, judged.harmless | judged.held
    return {"guard": guard} | {name: (until & worse, done) for name, worse in tests.items()}


def z_score(
    canary: ArmStatistics, champion: ArmStatistics, kept: float, shoppers: bool
) -> npt.NDArray[np.float64]:
    """Of CTR_canary - kept CTR_champion; 0 where there is nothing yet."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if shoppers:
            mine, other = (arm.shopper_variance / arm.shoppers for arm in (canary, champion))
        else:
            ctr = (canary.clicks + champion.clicks) / (canary.impressions + champion.impressions)
            mine, other = (ctr * (1 - ctr) / arm.impressions for arm in (canary, champion))
        return np.nan_to_num((canary.ctr - kept * champion.ctr) / np.sqrt(mine + kept**2 * other), nan=0.0)


def rollouts(
    crowd: Crowd, drops: tuple[float, ...], params: RolloutParams, rng: np.random.Generator, runs: int
) -> dict[float, dict[str, Any]]:
    """Drop -> what became of it: every rule by its name, and of the first step

    missed     (runs,) the interval left the truth out at some look
    user_days  (looks,) of the canary
    price      (2, looks) runs that the clicks have condemned: by the guard at any look so far, and by a
               z-test of the same margin and alpha, had this been its only look
    """
    told: dict[float, dict[str, Any]] = {drop: {name: Rule(runs) for name in RULES} for drop in drops}
    for number, step in enumerate(step for step in params.steps if step.percent < 100):
        looks = crowd.looks(step)
        champion = crowd.arm(rng, 0.0, looks * (100 - step.percent) // step.percent, runs)
        for drop, found in told.items():
            canary = crowd.arm(rng, drop, looks, runs)
            seen = flags(canary, champion, step.user_days, params)
            for name, (down, up) in seen.items():
                found[name].step(down, up, canary)
            if number == 0:
                interval = judge(canary, champion, step.user_days, params).interval
                out = (interval.upper < -drop) | (interval.lower > -drop)
                found["missed"] = (out & burnt_in(canary, champion, params)).any(axis=1)
                ever = np.logical_or.accumulate(seen["guard"][0], axis=1)
                once = z_score(canary, champion, 1 - params.margin, shoppers=True)
                once = once < norm.ppf(params.alpha_per_step / 2)
                found["price"], found["user_days"] = np.stack([ever.sum(axis=0), once.sum(axis=0)]), looks
    return told


def table(runs: int, params: RolloutParams) -> Iterator[dict[str, Any]]:
    """One row per case and drop."""
    for number, (crowd, drops) in enumerate(CASES):
        parts = []
        for first in range(0, runs, CHUNK):
            rng = np.random.default_rng([SEED, number, first])
            parts.append(rollouts(crowd, drops, params, rng, min(CHUNK, runs - first)))
        for drop in drops:
            yield {"crowd": crowd.name, "drop": drop} | summed([part[drop] for part in parts], runs)


def summed(parts: list[dict[str, Any]], runs: int) -> dict[str, Any]:
    row: dict[str, Any] = {"missed": float(np.concatenate([part["missed"] for part in parts]).mean())}
    for name in RULES:
        rules = [part[name] for part in parts]
        back = np.concatenate([rule.rolled_back for rule in rules])
        row[name] = {"rolled_back": float(back.mean())}
        row[name]["promoted"] = float(np.concatenate([rule.going for rule in rules]).mean())
        for unit in ("user_days", "impressions"):
            until = np.concatenate([getattr(rule, unit) for rule in rules])[back]
            row[name][unit] = float(np.median(until)) if len(until) else None
    shares = sum(part["price"] for part in parts) / runs
    reached = [first_true(share[None] >= POWER)[0] for share in shares]
    looks = parts[0]["user_days"]
    row["price"] = [int(looks[at]) if at < len(looks) else None for at in reached]
    return row


def line(row: Mapping[str, Any]) -> str:
    """A row of the table in docs/rollout.md."""
    guard = row["guard"]
    after = f" ({guard['user_days']:,.0f}; {guard['impressions']:,.0f})" if guard["user_days"] else ""
    cells = [row["crowd"], f"{-row['drop']:+.0%}" if row["drop"] else "0%"]
    cells += [f"{guard['rolled_back']:.1%}{after}", f"{guard['promoted']:.1%}", f"{row['missed']:.1%}"]
    cells += [f"{row[name]['rolled_back']:.0%}" for name in RULES[1:]]
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| clicks | true change | guard rolls back (after user-days; impressions) | promotes | interval missed "
    "| naive | z, slots | z, shoppers |\n|---|---|---|---|---|---|---|---|"
)


def prices(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Where both got there: user-days of the canary until the clicks have condemned POWER of the runs."""
    yield f"| clicks | true change | one look, {POWER:.0%} power | the guard, any look | times |"
    yield "|---|---|---|---|---|"
    for row in rows:
        guard, once = row["price"]
        if guard and once:
            yield f"| {row['crowd']} | {-row['drop']:+.0%} | {once:,} | {guard:,} | {guard / once:.1f} |"


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Who rolls back challengers that are no worse; then the guard: power and time by the true drop."""
    figure = Figure(figsize=(15, 4.6), layout="constrained")
    wrong, power, time = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
    same = [row for row in rows if row["drop"] == 0.0]
    for place, (name, colour) in enumerate(
        zip(RULES, ("#1b6ca8", "#b23a48", "#d08c2e", "#7a8793"), strict=True)
    ):
        shares = [row[name]["rolled_back"] for row in same]
        wrong.bar(np.arange(len(same)) + 0.2 * (place - 1.5), shares, 0.2, color=colour, label=name)
    wrong.axhline(ALPHA, color="black", linestyle="--", linewidth=1, label=f"{ALPHA:.0%}")
    wrong.set_xticks(range(len(same)), [row["crowd"].replace(", ", "\n") for row in same], fontsize=6.5)
    wrong.set(title="Rolled back though there is no difference", ylabel="share of the rollouts", ylim=(0, 1))
    for crowd, style in (
        (Strangers(ctr, c), s) for c, s in ((CLUSTERING, "o-"), (0.0, "o:")) for ctr in CTRS
    ):
        mine = [row for row in rows if row["crowd"] == crowd.name and row["drop"]]
        colour = ("#9ec5e5", "#4a90c4", "#12476f")[CTRS.index(crowd.ctr)]
        power.plot([r["drop"] for r in mine], [r["guard"]["rolled_back"] for r in mine], style, color=colour)
        often = [row for row in mine if row["guard"]["rolled_back"] >= 0.1]
        until = [row["guard"]["impressions"] for row in often]
        time.plot([row["drop"] for row in often], until, style, color=colour, label=crowd.name)
    power.set(title="The guard rolls back", ylabel="share of the rollouts", ylim=(-0.02, 1.02))
    time.set(
        title="after so long (where it does in a tenth)", ylabel="impressions of the challenger", yscale="log"
    )
    time.yaxis.set_major_formatter("{x:,.0f}")
    for axes in (power, time):
        axes.set(xlabel="true drop of CTR", xscale="log", xlim=(0.028, 0.33))
        axes.set_xticks(DROPS[1:], [f"{drop:.0%}" for drop in DROPS[1:]])
        axes.minorticks_off()
    for axes in (wrong, time):
        axes.legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--picture", help="a file for the curves")
    parser.add_argument("--json", type=Path, help="a file for the rows")
    args = parser.parse_args()
    print(HEADER)
    rows = []
    for row in table(args.runs, load("rollout", RolloutParams)):
        rows.append(row)
        print(line(row), flush=True)
    print("", *prices(rows), sep="\n")
    if args.json:
        write_json(args.json, rows)
    if args.picture:
        draw(rows).savefig(args.picture, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
