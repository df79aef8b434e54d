"""What the guard would have said of experiments that were made, look by look, and what the end says of that.

    python benchmarks/trials.py [--data ../shared/data/experiments]

    asos      78 experiments of a fashion shop, four metrics each: means and variances so far, look by look
              (ASOS Digital Experiments, osf.io/64jsb)
    upworthy  the first two headlines of 4,873 tests (Upworthy Research Archive, osf.io/jd64p): the totals are
              real, their order was not kept, so 40 looks take the impressions in a random one
    halves    the same impressions of both headlines, dealt out to two arms by chance: no difference

A comparison is one step that is planned to hold what the experiment held. "In the end" is one z-test of the
same margin and alpha at the last look, the variance taken between shoppers: what an analyst without any
looks in between would say. Rules as in benchmarks/guard.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from guard import RULES, SEED, Rule, flags, z_score
from scipy.stats import norm

from feature_repo.params import load
from monitoring.experiment.guard import RolloutParams
from monitoring.experiment.sequential import ArmStatistics

DATA = Path(__file__).resolve().parents[1] / "../shared/data/experiments"
LOOKS = 40
Pair = tuple[ArmStatistics, ArmStatistics]  # challenger, champion; fields (comparisons, looks)


def asos(path: Path) -> Iterator[tuple[str, Pair]]:
    """A metric's comparisons; those with fewer looks repeat their last one."""
    rows = pd.read_parquet(path).dropna().query("count_c > 1 and count_t > 1").sort_values("time_since_start")
    for metric, found in rows.groupby("metric_id"):
        series = [one for _, one in found.groupby(["experiment_id", "variant_id"])]
        most = max(map(len, series))
        yield f"asos, metric {metric}", (arm(series, "t", most), arm(series, "c", most))


def arm(series: list[pd.DataFrame], side: str, most: int) -> ArmStatistics:
    """Shoppers with one observation each."""
    names = [f"{name}_{side}" for name in ("count", "mean", "variance")]
    padded = [np.pad(one[names].to_numpy(), ((0, most - len(one)), (0, 0)), "edge") for one in series]
    count, mean, variance = np.moveaxis(np.stack(padded), 2, 0)
    total, squares = count * mean, variance * (count - 1) + count * mean**2
    return ArmStatistics(count, count, total, count, squares, count, total)


def upworthy(path: Path) -> Iterator[tuple[str, Pair]]:
    """The first two headlines of each test, and their impressions dealt out anew."""
    rng = np.random.default_rng(SEED)
    arms = pd.read_parquet(path).groupby("clickability_test_id", sort=False)
    first, second = (arms.nth(i).set_index("clickability_test_id")[["impressions", "clicks"]] for i in (0, 1))
    both = first.join(second, lsuffix="_c", rsuffix="_t", how="inner").to_numpy()
    shown, clicked = both[:, [0, 2]], both[:, [1, 3]]
    yield "upworthy", (dealt(rng, shown[:, 1], clicked[:, 1]), dealt(rng, shown[:, 0], clicked[:, 0]))
    mine = rng.hypergeometric(clicked.sum(1), (shown - clicked).sum(1), shown[:, 1])
    other = clicked.sum(1) - mine
    yield "upworthy, halves", (dealt(rng, shown[:, 1], mine), dealt(rng, shown[:, 0], other))


def dealt(rng: np.random.Generator, shown: np.ndarray, clicks: np.ndarray) -> ArmStatistics:
    """The totals (comparisons,) in a random order, at LOOKS looks."""
    seen = np.linspace(0, shown, LOOKS + 1, axis=1).astype(np.int64)[:, 1:]
    left, found = clicks.copy(), []
    before = np.zeros_like(shown)
    for now in seen.T:
        new = rng.hypergeometric(left, shown - before - left, now - before)
        left, before = left - new, now
        found.append(clicks - left)
    total = np.stack(found, axis=1)
    return ArmStatistics(seen, seen, total, seen, total, seen, total)


def told(name: str, pair: Pair, params: RolloutParams) -> str:
    """A row of the table in docs/rollout.md."""
    canary, champion = pair
    planned = canary.user_days[:, -1:]
    rules = {}
    for rule, (down, up) in flags(canary, champion, planned, params).items():
        rules[rule] = Rule(len(planned))
        rules[rule].step(down, up, canary)
    end = z_score(canary, champion, 1 - params.margin, shoppers=True)[:, -1]
    limit = norm.isf(params.alpha_per_step / 2)
    guard = rules["guard"]
    ended = guard.rolled_back | guard.going
    early = np.median(guard.user_days[ended] / planned[ended, 0])
    cells = [name, f"{len(end):,}", f"{(end < -limit).sum():,}, {(end > limit).sum():,}"]
    cells += [f"{guard.rolled_back.sum():,}, {guard.going.sum():,}", f"{early:.0%}"]
    for rule in RULES:
        denied = rules[rule].rolled_back & (end > -limit)
        cells.append(f"{denied.sum():,} of {rules[rule].rolled_back.sum():,}")
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| experiments | comparisons | in the end worse, not worse | guard rolls back, advances | after "
    "| rollbacks that the end does not confirm: guard | naive | z, slots | z, shoppers |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    folder = parser.parse_args().data
    missing = [name for name in ("asos", "upworthy") if not (folder / f"{name}.parquet").is_file()]
    if missing:
        print(f"skipped: no {missing[0]}.parquet in {folder}; what it is stands in the head of this file")
        return
    params = load("rollout", RolloutParams)
    print(HEADER)
    for name, pair in (*asos(folder / "asos.parquet"), *upworthy(folder / "upworthy.parquet")):
        print(told(name, pair, params), flush=True)


if __name__ == "__main__":
    main()
