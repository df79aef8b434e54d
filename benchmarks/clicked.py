"""How many of the slots of a list would be clicked in the simulated shop, by its own truth.

    endcap up && python benchmarks/clicked.py [--shoppers 4000]

The rows of a shop that runs (`make demo`) answer; nothing is asked over HTTP and nothing is written. Shoppers
of the simulated world come for the first page of a visit, and once more for the page of a product that they
like. Each list is judged by the expected clicks per slot, position by position, beside: bestsellers (what the
holdout gets), our ranker's score alone, and the best list that the truth allows for this shopper.

The last line asks the canary's own sequential test whether ours beats bestsellers on the first pages of
shoppers whom the shop does not know, with clicks drawn from those chances, one page per shopper and arm.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor, history
from feature_repo.clock import micros
from feature_repo.params import load, root, shop
from feature_repo.persons.privacy import persons
from feature_repo.places import CANDIDATE, at
from feature_repo.ports import redis_url
from monitoring.experiment.guard import RolloutParams
from monitoring.experiment.sequential import ArmStatistics, compare
from pipelines.simulate.world import Context as Moment
from pipelines.simulate.world import World
from serving.live.online_features import OnlineFeatures
from serving.pipeline import Bundle, recommend, visitor_of
from serving.release import bundle
from serving.stages.bestsellers import bestsellers
from serving.stages.eligibility import eligibility
from serving.stages.odds import UNWEIGHTED, phase
from serving.types import Context, Request

K, GAP = 12, timedelta(seconds=30)
Policy = Callable[[Request, Visitor, ItemMatrix], list[str]]


class Asked(NamedTuple):
    """One page: who asks in which moment, and how likely each item of the world is clicked if looked at."""

    request: Request
    visitor: Visitor
    matrix: ItemMatrix
    chance: np.ndarray


def policies(release: Bundle) -> dict[str, Policy]:
    plain = replace(release, clicks=UNWEIGHTED)
    return {
        "bestsellers": lambda *page: [slot.item_id for slot in bestsellers(*page)],
        "ranker alone": lambda request, *page: _served(request, plain, *page),
        "ours": lambda request, *page: _served(request, release, *page),
    }


def _served(request: Request, release: Bundle, *page: object) -> list[str]:
    return [slot.item_id for slot in recommend(request, release, *page).slots]  # type: ignore[arg-type]


async def pages(release: Bundle, world: World, shoppers: int, seed: int) -> list[Asked]:
    """Two pages of each of so many shoppers, who come GAP apart after the last that the shop has seen."""
    rng, found = np.random.default_rng(seed), list[Asked]()
    features = OnlineFeatures(redis_url(), release.models.ids)
    features.load_items()
    people, everything = world.shoppers, np.arange(len(world.shop.item_ids))
    known, called = len(people.user_ids), persons()
    now = datetime.fromisoformat((shop().run_dir() / "shoppers_until.txt").read_text())
    for number in range(shoppers):
        now += GAP
        stranger = rng.random() < world.population.anonymous_share
        activity = people.activity / people.activity.sum()
        who = int(rng.integers(known, len(people.budget))) if stranger else int(rng.choice(known, p=activity))
        leaf, style = world.intents(np.array([who]), np.array([world.day(now)]), rng)
        moment = Moment("homepage_hero", int(leaf[0]), int(style[0]), -1, world.day(now))
        channel = str(world.channels(np.array([who]), rng)[0])
        context = Context(device=str(people.device[who]), country=str(people.country[who]), channel=channel)
        likes = world.click_probability(who, everything, moment)
        focus = int(rng.choice(len(likes), p=likes / likes.sum()))
        product = (str(world.shop.item_ids[focus]),)
        on_product = replace(moment, surface="pdp_fbt", focus=focus)
        user, session = called.asking(people.user_id(who), f"asked-{number}")
        for surface, items, seen in ((moment.surface, (), moment), ("pdp_fbt", product, on_product)):
            request = Request(
                surface=surface, user_id=user, session_id=session, items=items,
                context=context, limit=K, as_of=micros(now),
            )  # fmt: skip
            rows = await features.read(request.user_id, request.session_id, micros(now))
            visitor, matrix = visitor_of(request, micros(now), rows.user, rows.session), features.matrix
            found.append(Asked(request, visitor, matrix, world.click_probability(who, everything, seen)))
    return found


def judged(asked: list[Asked], release: Bundle, world: World) -> Iterator[tuple[str, str, np.ndarray]]:
    """(page, policy, expected clicks of each slot) of every list."""
    looked = world.examination(np.arange(1, K + 1))
    for request, visitor, matrix, chance in asked:
        page = f"{request.surface}, {phase(history(visitor, matrix))}"
        mask = eligibility(request, visitor, matrix, release.retrieve.bought_days).mask
        rows = np.array([matrix.row.get(str(item), -1) for item in world.shop.item_ids])
        yield (
            page,
            "true best list",
            np.sort(np.where(mask[rows] & (rows >= 0), chance, 0.0))[::-1][:K] * looked,
        )
        for name, policy in policies(release).items():
            listed = [world.row[item] for item in policy(request, visitor, matrix)]
            yield page, name, chance[listed] * looked[: len(listed)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shoppers", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=5)
    arguments = parser.parse_args()
    world, release = World.load(root() / shop().source / "truth.npz"), bundle.load(at(CANDIDATE))
    asked = asyncio.run(pages(release, world, arguments.shoppers, arguments.seed))
    found: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
    for page, name, clicks in judged(asked, release, world):
        found[page][name].append(clicks)
    for page, lists in sorted(found.items()):
        print(f"{page}: {len(lists['ours']):,} pages, expected clicks per slot")
        for name, clicks in lists.items():
            means = [one.mean() for one in clicks]
            print(f"  {name:<15} {np.mean(means):6.2%} +- {np.std(means) / len(means) ** 0.5:.2%}")
    rng, first = np.random.default_rng(arguments.seed), found["homepage_hero, stranger"]
    arms = [
        sum(
            (ArmStatistics.of(int((rng.random(len(one)) < one).sum()), len(one)) for one in first[name]),
            ArmStatistics(),
        )
        for name in ("ours", "bestsellers")
    ]
    params = load("rollout", RolloutParams)
    interval = compare(*arms, 0.0, params.alpha, params.tightest_error)
    print(
        f"ours over bestsellers, strangers' first pages, by the canary's test: {interval.estimate:+.0%}, "
        f"from {interval.lower:+.0%} to {interval.upper:+.0%}"
    )


if __name__ == "__main__":
    main()
