"""Interleaving beside A/B where the true difference is known: the same verdict? with how many shoppers?

    python benchmarks/interleaving.py [--shoppers 4000] [--runs 200] [--come 20000]
    python benchmarks/interleaving.py --cost data/bundles/CHAMPION data/bundles/CHALLENGER

Shoppers of the simulated world (pipelines/simulate/world.py) come for one to several first pages, each with
an intent of its own; 120 candidates a page. The champion's ranker errs by a fixed noise on top of the truth.
The challenger is one of the same kind whose noise is greater by as much as makes its lists' expected clicks
fall by the planted part; for a lift the two change places; at no difference both have other errors of the
same size. Clicks are drawn from the world's chances by position.

    right, wrong   runs that come to a verdict at any of 60 looks within `--come` shoppers, per design
    agree          of the runs in which both came to one, those in which it is the same
    for 80 %       shoppers for a power of 80 %, looking at any time, from the exact means and variances of a
                   shopper's clicks; `plain` where what both would show next belongs to a team all the same

A/B has half of the shoppers in each arm and asks the confidence sequence of monitoring/experiment whether the
CTR differs; interleaving asks monitoring/trials/preference.py. Both have the same alpha. `--cost` tells what
the second list takes of a worker, of visits that have seen five products.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from scipy.special import ndtri

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.features.catalogue import SHOWN
from feature_repo.features.stored import SESSION_CONTEXT
from feature_repo.folds.fold import Event
from feature_repo.params import load
from monitoring.experiment.sequential import ArmStatistics, compare, price_of_looking
from monitoring.trials.preference import Clicks, bounds
from monitoring.trials.verdicts import Trials, tightest
from pipelines.simulate.simulate import Simulate, make_world
from pipelines.simulate.world import Context, World
from serving.beside.draft import FIRST, NOBODY, SECOND, draft
from serving.beside.interleaver import Interleaver, Rival, undrawn
from serving.beside.trial import InterleaveParams, Trial
from serving.pipeline import recommend, visitor_of
from serving.release import bundle
from serving.release.loaded import Loaded
from serving.release.state import Release
from serving.stages.steering import UNSTEERED
from serving.types import Request

K, CANDIDATES, SEEN, LOOKS, SEED = 12, 120, 400, 60, 20260301
CHANGES = (0.0, -0.03, 0.03, -0.10, 0.10, -0.30, 0.30)
ERROR, MORE_PAGES = 1.0, 1.0  # of a ranker, log odds; pages of a shopper beyond the first, mean
Mixer = Callable[..., list[tuple[int, str]]]


class Pages(NamedTuple):
    """`chance` (P, CANDIDATES) of a click if looked at, `noise` (3, P, CANDIDATES); of `shopper` (P,)."""

    chance: np.ndarray
    noise: np.ndarray
    shopper: np.ndarray
    looked: np.ndarray  # (K,) at a position


class Expected(NamedTuple):
    """Clicks to expect of each shopper (S,): of A/B's lists, and of mixed ones by team, for a coin and its
    opposite (2, S)."""

    champion: np.ndarray
    challenger: np.ndarray
    slots: np.ndarray
    first: np.ndarray
    second: np.ndarray


def pages(world: World, shoppers: int, rng: np.random.Generator) -> Pages:
    shopper = np.repeat(np.arange(shoppers), 1 + rng.poisson(MORE_PAGES, shoppers))
    person = rng.integers(0, len(world.shoppers.budget), shoppers)[shopper]
    found = []
    for part in np.array_split(np.arange(len(shopper)), max(len(shopper) // 1000, 1)):
        who, day = person[part], rng.uniform(0, 56, len(part))
        leaf, style = world.intents(who, day, rng)
        items = rng.integers(0, len(world.shop.item_ids), (len(part), SEEN))
        chance = world.click_probability(who, items, Context("homepage_hero", leaf, style, -1, day))
        told = np.log(chance + 1e-9) + rng.normal(0, ERROR, chance.shape)
        best = np.argpartition(-told, CANDIDATES, axis=1)[:, :CANDIDATES]
        found.append(np.take_along_axis(chance, best, axis=1))
    chance = np.concatenate(found)
    noise = rng.normal(size=(3, *chance.shape)).astype(np.float32)
    return Pages(chance, noise, shopper, world.examination(np.arange(1, K + 1)))


def lists(of: Pages, extra: float, which: int) -> np.ndarray:
    """(P, K) candidates, best first, of a ranker with its error and `extra` besides, by noise `which`."""
    told = np.log(of.chance + 1e-9) + ERROR * of.noise[0] + extra * of.noise[which]
    return np.argsort(-told, axis=1, kind="stable")[:, :K]


def clicks(of: Pages, shown: np.ndarray) -> np.ndarray:
    """(P, K) expected clicks, slot by slot."""
    return np.take_along_axis(of.chance, shown, axis=1) * of.looked


def extra_for(of: Pages, drop: float) -> float:
    """The noise that costs a ranker this part of its expected clicks."""
    whole, low, high = clicks(of, lists(of, 0.0, 1)).sum(), 0.0, 8.0
    for _ in range(14):
        middle = (low + high) / 2
        lost = 1 - clicks(of, lists(of, middle, 1)).sum() / whole
        low, high = (middle, high) if lost < drop else (low, middle)
    return (low + high) / 2


def sides(of: Pages, change: float) -> tuple[np.ndarray, np.ndarray]:
    """The lists of champion and challenger."""
    if change == 0.0:
        extra = extra_for(of, 0.05)
        return lists(of, extra, 1), lists(of, extra, 2)
    # A lift of x is a drop of x / (1 + x) seen from the other side.
    other = lists(of, extra_for(of, -change if change < 0 else change / (1 + change)), 1)
    plain = lists(of, 0.0, 1)
    return (plain, other) if change < 0 else (other, plain)


def plainly(mine: list[int], theirs: list[int], coin: Callable[[], bool]) -> list[tuple[int, str]]:
    """Team draft as it was published: what both would show next is the team's that picks first."""
    found: dict[int, str] = {}
    while len(found) < K:
        order = ((mine, FIRST), (theirs, SECOND)) if coin() else ((theirs, SECOND), (mine, FIRST))
        for of, team in order:
            if len(found) < K:
                found[next(item for item in of if item not in found)] = team
    return list(found.items())


def expected(of: Pages, mine: np.ndarray, theirs: np.ndarray, mix: Mixer) -> Expected:
    shoppers = int(of.shopper[-1]) + 1
    teams = np.zeros((2, 2, len(mine)))  # coin, team, page
    for page, (a, b) in enumerate(zip(mine.tolist(), theirs.tolist(), strict=True)):
        for turned in (0, 1):
            coins = random.Random(page)
            mixed = mix(a, b, coin=lambda coins=coins, turned=turned: (coins.random() < 0.5) != bool(turned))
            for at, (item, team) in enumerate(mixed):
                if team != NOBODY:
                    teams[turned, int(team == SECOND), page] += of.chance[page, item] * of.looked[at]
    summed = [np.bincount(of.shopper, part, shoppers) for part in teams.reshape(4, -1)]
    by_coin = np.stack(summed).reshape(2, 2, shoppers)
    whole = [np.bincount(of.shopper, clicks(of, shown).sum(1), shoppers) for shown in (mine, theirs)]
    return Expected(*whole, K * np.bincount(of.shopper), by_coin[:, 0], by_coin[:, 1])


def needed(found: Expected) -> tuple[float, float]:
    """Shoppers for the power that plans are made for, at any look: A/B (both arms), interleaving."""
    params = load("trials", Trials)
    reach = (float(ndtri(params.power) - ndtri(params.alpha / 2))) ** 2 * price_of_looking(params.alpha)
    a, b, n = found.champion, found.challenger, found.slots
    ctr = a.sum() / n.sum()
    delta = (b.sum() - a.sum()) / n.sum()
    # Of clicks that are Poisson about what is expected: the mean, and the variance between shoppers.
    spread = sum((side.mean() + np.var(side - ctr * n)) / n.mean() ** 2 for side in (a, b))
    d = found.second - found.first
    square = (found.first + found.second).mean() + (d**2).mean()
    return 2 * reach * spread / delta**2, reach * square / d.mean() ** 2


def told(found: Expected, runs: int, come: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(runs,) verdicts of A/B and of interleaving: 1 the challenger, -1 the champion, 0 none at any look."""
    params, mixing = load("trials", Trials), load("interleave", InterleaveParams)
    looks = np.unique(np.geomspace(200, come, LOOKS).astype(int)) - 1
    verdicts = np.zeros((2, runs), int)
    for run in range(runs):
        who, coin = rng.integers(0, len(found.slots), come), rng.integers(0, 2, come)
        arm = rng.integers(0, 2, come) == 1
        clicked = rng.poisson(np.where(arm, found.challenger[who], found.champion[who]))
        arms = [_statistics(clicked, found.slots[who], arm == side, looks) for side in (True, False)]
        interval = compare(*arms, 0.0, params.alpha, tightest(mixing.preference, params.alpha))
        burnt = np.minimum(arms[0].clicks, arms[1].clicks) >= params.burn_in_events
        verdicts[0, run] = _first(interval.lower, interval.upper, burnt)
        a, b = (rng.poisson(team[coin, who]) for team in (found.first, found.second))
        sums = [np.cumsum(x)[looks] for x in (a + b, b - a, (b - a) ** 2, (a + b) > 0)]
        _, low, high = bounds(Clicks(*sums), mixing.preference, params.alpha)
        verdicts[1, run] = _first(low, high, sums[3] >= params.burn_in_events)
    return verdicts[0], verdicts[1]


def _statistics(clicked: np.ndarray, slots: np.ndarray, arm: np.ndarray, looks: np.ndarray) -> ArmStatistics:
    x, n = clicked * arm, slots * arm
    columns = arm, arm, x, n, x * x, n * n, x * n
    return ArmStatistics(*(np.cumsum(column)[looks].astype(float) for column in columns))


def _first(low: np.ndarray, high: np.ndarray, burnt: np.ndarray) -> int:
    says = np.where(burnt, (low > 0).astype(int) - (high < 0), 0)
    return int(says[np.argmax(says != 0)])


def row(of: Pages, change: float, runs: int, come: int) -> dict[str, Any]:
    rng = np.random.default_rng(SEED + round(1000 * change))
    mine, theirs = sides(of, change)
    found, plain = (expected(of, mine, theirs, mix) for mix in (partial(draft, slots=K), plainly))
    shared = (mine[:, :, None] == theirs[:, None, :]).any(2).mean()
    ab, mixed = told(found, runs, come, rng)
    both = (ab != 0) & (mixed != 0)
    sign = np.sign(change)
    about: dict[str, Any] = {
        "change": change,
        "true": found.challenger.sum() / found.champion.sum() - 1,
        "ctr": found.champion.sum() / found.slots.sum(),
        "shared": float(shared),
        "ab": [float(np.mean(ab == sign)), float(np.mean((ab != 0) & (ab != sign)))],
        "mixed": [float(np.mean(mixed == sign)), float(np.mean((mixed != 0) & (mixed != sign)))],
        "both": int(both.sum()),
        "agree": float(np.mean(ab[both] == mixed[both])) if both.any() else None,
    }
    if change:
        needs = *needed(found), needed(plain)[1]
        about |= dict(zip(("need_ab", "need_mixed", "need_plain"), needs, strict=True))
    return about


def cost(folders: list[Path], asked: int = 300) -> str:
    """CPU time of one list, and of the mixture that is made of it and another."""
    mine, other = (bundle.load(folder) for folder in folders)
    table = pq.read_table(folders[0] / "catalogue.parquet")
    names = {name: table[name].to_pylist() for name in (*SHOWN, "margin", "stock")}
    items = ItemMatrix(mine.models.ids, names | {"available_from": [None] * len(table)})
    nothing: Any = None
    interleaver = Interleaver(nothing, nothing, nothing, InterleaveParams(1.0, 1.0, 1e9, 0.1))
    rival = Rival(Loaded(other, nothing), Trial(Release("", ""), 1.0, 0, "", "salt"))
    times, rng, now = [], random.Random(SEED), 1_772_000_000_000_000
    for number in range(asked):
        fold = SESSION_CONTEXT.new()
        for at, item in enumerate(rng.sample(mine.models.ids, 5)):
            fold = SESSION_CONTEXT.step(fold, Event(now - 60_000_000 + at, "product_viewed", None, "s", item))
        request = Request("homepage_hero", session_id=f"s{number}")
        visitor = visitor_of(request, now, None, SESSION_CONTEXT.row(fold))
        began = time.thread_time()
        served = recommend(request, undrawn(mine), visitor, items)
        one = time.thread_time()
        interleaver.mixed(rival, request, visitor, items, UNSTEERED, served, mine, print)
        times.append((1000 * (one - began), 1000 * (time.thread_time() - one)))
    alone, beside = np.quantile(np.array(times[20:]), (0.5, 0.99), axis=0).T
    told = "ms of CPU, p50 / p99: one list {:.2f} / {:.2f}, the other and the draft {:.2f} / {:.2f}"
    return told.format(*alone, *beside)


HEADER = (
    "| true change of CTR | shared | A/B right, wrong | interleaving right, wrong | agree | A/B for 80 % "
    "| interleaving | a part of | plain |\n|---|---|---|---|---|---|---|---|---|"
)


def line(found: dict[str, Any]) -> str:
    """A row of the table in docs/rollout.md."""
    cells = [f"{found['true']:+.1%}", f"{found['shared']:.0%}"]
    for right, wrong in (found["ab"], found["mixed"]):
        cells.append(f"{right:.1%}, {wrong:.1%}" if found["change"] else f"-, {wrong:.1%}")
    cells.append(f"{found['agree']:.1%} of {found['both']}" if found["agree"] is not None else "-")
    if not found["change"]:
        return "| " + " | ".join([*cells, "-", "-", "-", "-"]) + " |"
    ab, mixed, plain = (found[f"need_{name}"] for name in ("ab", "mixed", "plain"))
    cells += [f"{ab:,.0f}", f"{mixed:,.0f}", f"1/{ab / mixed:.1f}", f"1/{ab / plain:.1f}"]
    return "| " + " | ".join(cells) + " |"


def rows(shoppers: int, runs: int, come: int) -> Iterator[dict[str, Any]]:
    constants, rng = load("simulate", Simulate), np.random.default_rng(SEED)
    of = pages(make_world(constants, constants.size_of("simulated"), rng), shoppers, rng)
    for change in CHANGES:
        yield row(of, change, runs, come)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shoppers", type=int, default=4_000, help="of the world, from whom those who come")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--come", type=int, default=20_000, help="shoppers of a run")
    parser.add_argument("--cost", type=Path, nargs=2, help="two bundles: what the second list takes")
    args = parser.parse_args()
    if args.cost:
        print(cost(args.cost))
        return
    print(HEADER)
    found = []
    for one in rows(args.shoppers, args.runs, args.come):
        found.append(one)
        print(line(one), flush=True)
    print(f"\nCTR of the champion: {found[0]['ctr']:.2%}")


if __name__ == "__main__":
    main()
