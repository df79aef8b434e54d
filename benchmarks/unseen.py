"""A week of the simulated shop with and without the budget for unseen products: who is shown, at what cost.

    endcap up && python benchmarks/unseen.py [--visits 600] [--days 7] [--share 0.55]

The release of a shop that runs answers in process, by its own request path and the rows of its shoppers;
nothing is asked over HTTP and nothing is written. Shoppers come day by day for a first page and a category
page; each list is judged by the expected clicks of its slots, by the world's own truth. Both policies meet
the same shoppers. Every night the products that nobody will have seen for 72 hours by the next night are put
on offer, and whatever is shown leaves it. The three days before the week are without the budget for both.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

import numpy as np

from feature_repo.assemble.matrix import COUNTERS, ItemMatrix
from feature_repo.clock import DAY_US, HOUR_US, micros
from feature_repo.folds.parts import POSITION_EXPONENT
from feature_repo.params import load, root, shop
from feature_repo.persons.privacy import persons
from feature_repo.places import CANDIDATE, at
from feature_repo.ports import redis_url
from pipelines.protocol.metrics import bootstrap_interval
from pipelines.simulate.world import Context as Moment
from pipelines.simulate.world import World
from pipelines.unseen.unseen import UnseenParams
from serving.explore.chance import draw
from serving.explore.explorer import SEEK
from serving.explore.offer import Explore, Offer
from serving.live.online_features import OnlineFeatures
from serving.pipeline import Bundle, recommend, visitor_of
from serving.release import bundle
from serving.stages.eligibility import on_sale
from serving.stages.steering import UNSTEERED
from serving.types import Context, Request

K, BEFORE = 12, 3
SURFACES = ("homepage_hero", "category_sort")


class Told(NamedTuple):
    """Of one policy: unseen products at the end of each day, expected clicks per slot of every list, and the
    lists of the week that explored."""

    unseen: list[int]
    clicks: np.ndarray
    explored: int


class Shelves:
    """The shop under one policy: what was shown when, and the counts by which the long tail is told."""

    def __init__(self, matrix: ItemMatrix) -> None:
        self.matrix = matrix
        self.last = np.zeros(len(matrix), np.int64)
        self._today = np.zeros(len(matrix))

    def unseen(self, now: int, hours: float) -> np.ndarray:
        """Rows on sale for `hours`, of which nobody was shown any as long."""
        since = now - round(hours * HOUR_US)
        rows = np.flatnonzero((self.last <= since) & (self.matrix.available_from <= since))
        return rows[on_sale(self.matrix, now, rows)]

    def show(self, items: list[str], now: int) -> None:
        rows = self.matrix.rows_of(items)
        self.last[rows] = now
        np.add.at(self._today, rows, np.arange(1, len(rows) + 1) ** -POSITION_EXPONENT)

    def close(self, now: int) -> None:
        """The day's impressions into the counts, as the consumers would have counted them."""
        every = np.arange(len(self.matrix))
        values = {name: column.copy() for name, column in self.matrix.activity.items()}
        values |= {name: self.matrix.count(name, now) for name in COUNTERS}
        values |= {"exposure_7d": values["exposure_7d"] + self._today, "at": np.full(len(every), now)}
        self.matrix = self.matrix.updated(every, values)
        self._today[:] = 0.0


def week(
    release: Bundle,
    features: OnlineFeatures,
    runner: asyncio.Runner,
    world: World,
    start: int,
    args: argparse.Namespace,
    share: float,
) -> Told:
    """BEFORE days without the budget, then `days` with `share` of the lists exploring, `per_day` at most."""
    shelves, rng = Shelves(features.matrix), np.random.default_rng(args.seed)
    of = load("unseen", UnseenParams)
    people, everything, unseen = world.shoppers, np.arange(len(world.shop.item_ids)), list[int]()
    activity, called = people.activity / people.activity.sum(), persons()
    clicks, explored, looked = list[float](), 0, world.examination(np.arange(1, K + 1))
    for day in range(BEFORE + args.days):
        live, now = day >= BEFORE, start + day * DAY_US
        due = shelves.unseen(now, of.hours - of.every) if live and share else np.zeros(0, np.int64)
        due = due[np.argsort(shelves.last[due], kind="stable")]
        offered = np.sort(due[: args.per_day * len(SURFACES)])
        left = dict.fromkeys(SURFACES, args.per_day)
        for visit in range(args.visits):
            now += DAY_US // args.visits
            who = int(rng.choice(len(people.user_ids), p=activity))
            today = np.array([world.day(datetime.fromtimestamp(now / 1e6, world.start.tzinfo))])
            leaf, style = world.intents(np.array([who]), today, rng)
            user = called.of(str(people.user_id(who)))  # as the stores know them
            rows = runner.run(features.read(user, None, now))
            for number, surface in enumerate(SURFACES):
                context = Context(device=str(people.device[who]), country=str(people.country[who]))
                request = Request(surface, user, f"{day}-{visit}", context=context, limit=K)
                visitor = visitor_of(request, now + number, rows.user, None)
                steering, seek = UNSTEERED, draw(request, visitor, SEEK)
                if len(offered) and left[surface] and seek is not None:
                    steering = replace(UNSTEERED, offer=Offer(share, offered, seek))
                served = recommend(request, release, visitor, shelves.matrix, steering)
                items = [slot.item_id for slot in served.slots]
                shelves.show(items, now)
                offered = offered[~np.isin(offered, shelves.matrix.rows_of(items))]
                if served.explored:
                    left[surface] -= 1
                    explored += 1
                if live:
                    moment = Moment(surface, int(leaf[0]), int(style[0]), -1, float(today[0]))
                    chance = world.click_probability(who, everything, moment)
                    listed = [world.row[item] for item in items]
                    clicks.append(float((chance[listed] * looked[: len(listed)]).mean()))
        shelves.close(now)
        unseen.append(len(shelves.unseen(now, of.hours)))
    return Told(unseen, np.array(clicks), explored)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--visits", type=int, default=600, help="a day; each asks for two lists")
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--share", type=float, default=0.55, help="of the lists that explore")
    parser.add_argument("--per-day", type=int, default=load("explore", Explore).per_day)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    world, release = World.load(root() / shop().source / "truth.npz"), bundle.load(at(CANDIDATE))
    features = OnlineFeatures(redis_url(), release.models.ids)
    features.load_items()
    runner = asyncio.Runner()  # connections live in one event loop
    start = micros(datetime.fromisoformat((shop().run_dir() / "shoppers_until.txt").read_text()))
    told = {
        name: week(release, features, runner, world, start, args, share)
        for name, share in (("without", 0.0), ("with", args.share))
    }
    print(
        f"{args.visits} visits a day, {args.share:.0%} of the lists explore, {args.per_day} a surface and day"
    )
    print("| unseen for 72 h at the end of day | " + " | ".join(f"{day}" for day in range(args.days)) + " |")
    print("|---" * (args.days + 1) + "|")
    for name, one in told.items():
        print(f"| {name} | " + " | ".join(f"{many:,}" for many in one.unseen[BEFORE:]) + " |")
    before, after = told["without"].unseen[-1], told["with"].unseen[-1]
    print(f"at the end: {before:,} without, {after:,} with the budget: {after / max(before, 1) - 1:+.0%}")
    ctr, change = told["without"].clicks, told["with"].clicks - told["without"].clicks
    low, high = bootstrap_interval(change, np.random.default_rng(args.seed))
    print(f"expected CTR {ctr.mean():.3%}; the budget changes it by {change.mean() / ctr.mean():+.2%} of it")
    print(f"  (95 % from {low / ctr.mean():+.2%} to {high / ctr.mean():+.2%})")
    print(f"{told['with'].explored:,} of {len(ctr):,} lists explored")


if __name__ == "__main__":
    main()
