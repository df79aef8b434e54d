"""What a shop becomes that learns from its own lists: five rounds, with and without the long tail's slot.

    python benchmarks/rounds.py [--skus 1000] [--visits 6000] [--picture docs/rounds.png]

A round is a week of the simulated shop. Its visitors click by the truth of the world, on the lists of a
policy that was fitted on nothing but the views of the round before: item-item co-visits, then popularity,
then the category, as content would bring an item that nobody has seen. Some begin with an item that they
searched for, by the truth as well; all else that is not shown cannot be learned. The lists are laid out by
the `diversify` that serves, on the exposure counts of an item matrix. The trainer is light on purpose: the
whole pipeline takes minutes a round, and the loop is the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from feature_repo.assemble.matrix import COUNTERS, ItemMatrix
from feature_repo.clock import DAY_US, micros
from feature_repo.folds.parts import POSITION_EXPONENT
from feature_repo.params import load
from feature_repo.picture import Figure
from pipelines.protocol.metrics import gini
from pipelines.simulate.shopper import Manners
from pipelines.simulate.simulate import Simulate, Size, make_world
from pipelines.simulate.world import Context, World
from serving.stages.diversify import Diversify, diversify
from serving.types import Ranked

K, CANDIDATES, DAYS = 12, 120, 7
DEPARTMENTS = 4
PLACES = np.arange(1, K + 1)


@dataclass
class Round:
    """What was shown and clicked in a week, and what the next round learns from."""

    impressions: np.ndarray  # (N,) per item
    visits: int = 0
    clicks: int = 0
    views: list[tuple[int, int]] = field(default_factory=list)  # (visit, item)

    def told(self, sold: np.ndarray) -> tuple[float, float, float]:
        """Gini and coverage of the exposure over the items on sale, and clicks per impression."""
        shown = self.impressions[sold]
        return gini(shown), float((shown > 0).mean()), self.clicks / float(self.impressions.sum())


class Policy:
    """Co-visits (N, N), cosine, and popularity (N,) of one round's views; leaf categories (N,) beside."""

    def __init__(self, seen: Round, leaf: np.ndarray) -> None:
        visit, item = np.unique(np.array(seen.views, np.int64).reshape(-1, 2), axis=0).T
        shape = seen.visits, len(seen.impressions)
        table = sparse.csr_matrix((np.ones(len(item), np.float32), (visit, item)), shape)
        totals = np.asarray(table.sum(0)).ravel()
        scale = sparse.diags(1 / np.sqrt(np.maximum(totals, 1.0)))
        self._covisits = (scale @ table.T @ table @ scale).tocsr()
        self._popularity = totals / max(totals.max(initial=0.0), 1.0)
        self._leaves = np.eye(leaf.max() + 1, dtype=np.float32)[leaf]  # (N, leaves)

    def scores(self, touched: np.ndarray) -> np.ndarray:
        """(v, N) for what was touched so far, bool (v, N): a history says more than what all look at."""
        known = np.asarray(sparse.csr_matrix(touched, dtype=np.float32) @ self._covisits.toarray())
        alike = touched @ self._leaves @ self._leaves.T > 0  # as content would find them
        return known + 0.01 * self._popularity + 0.001 * alike


class Loop:
    """The shop, week by week, under one setting of `diversify`."""

    def __init__(self, world: World, params: Diversify, visits: int, searched: float, seed: int) -> None:
        self._world, self._params, self._visits, self._searched = world, params, visits, searched
        self._rng = np.random.default_rng(seed)
        self._manners = load("shoppers", Manners)
        self._everything = np.arange(len(world.shop.item_ids))
        columns = ("price", "margin", "stock", "available_from", "category_path", "brand")
        nothing = [None] * len(self._everything)
        self._matrix = ItemMatrix(world.shop.item_ids.tolist(), dict.fromkeys(columns, nothing))

    def run(self, rounds: int) -> Iterator[tuple[float, float, float]]:
        """(Gini, coverage, CTR) of each round; the lists of the week before the first were blind."""
        seen = self._week(None, 0)
        for number in range(1, rounds + 1):
            seen = self._week(Policy(seen, self._world.shop.leaf), number)
            yield seen.told(self._world.shop.on_sale(self._everything, float(DAYS * number)))

    def _week(self, policy: Policy | None, number: int) -> Round:
        week = Round(np.zeros(len(self._everything), np.int64))
        for day in range(DAYS * number, DAYS * (number + 1)):
            self._day(policy, day, week)
        return week

    def _day(self, policy: Policy | None, day: int, week: Round) -> None:
        """Every visitor of a day, page by page side by side: homepage, then on, as `shoppers` says."""
        world, rng, manners = self._world, self._rng, self._manners
        who = rng.integers(len(world.shoppers.budget), size=self._visits // DAYS)
        leaf, style = world.intents(who, np.full(len(who), float(day)), rng)
        sold = world.shop.on_sale(self._everything, float(day))
        touched = np.zeros((len(who), len(sold)), np.bool_)
        focus = np.full(len(who), -1)
        today = np.zeros(len(sold))

        def view(visits: np.ndarray, items: np.ndarray) -> None:
            touched[visits, items] = True
            focus[visits] = items
            week.views.extend(zip((week.visits + visits).tolist(), items.tolist(), strict=True))

        came = np.flatnonzero(rng.random(len(who)) < self._searched)
        wanted = Context("search", leaf[came], style[came], -1, float(day))
        odds = world.affinity(who[came], self._everything, wanted)
        view(came, np.where(sold, odds + rng.gumbel(size=odds.shape), -np.inf).argmax(1))
        here = np.arange(len(who))
        for page in range(manners.max_pages):
            blind = rng.random((len(here), len(sold)))  # the order of what the policy knows nothing about
            scores = policy.scores(touched[here]) + 1e-6 * blind if policy else blind
            scores[touched[here] | ~sold] = -1.0
            drawn = rng.random(len(here))
            lists = np.array([self._list(*one) for one in zip(scores, drawn, strict=True)])  # (v, K)
            surface = "pdp_fbt" if page else "homepage_hero"
            asked = Context(surface, leaf[here], style[here], focus[here], float(day))
            chance = world.click_probability(who[here], lists, asked) * world.examination(PLACES)
            clicked = rng.random(lists.shape) < chance
            np.add.at(week.impressions, lists, 1)
            np.add.at(today, lists, np.broadcast_to(PLACES**-POSITION_EXPONENT, lists.shape))
            week.clicks += int(clicked.sum())
            visits, slots = clicked.nonzero()
            view(here[visits], lists[visits, slots])
            stays = np.where(clicked.any(1), manners.product_page_share, manners.return_share)
            here = here[rng.random(len(here)) < stays]
        week.visits += len(who)
        self._count(today, micros(world.start) + (day + 1) * DAY_US)

    def _list(self, score: np.ndarray, drawn: float) -> np.ndarray:
        """K rows of the catalogue, of the CANDIDATES best."""
        best = np.argpartition(-score, CANDIDATES)[:CANDIDATES]
        best = best[np.argsort(-score[best], kind="stable")]
        found = Ranked(best, score[best].astype(np.float32), (), np.empty((0, 0), np.float32))
        return best[diversify(self._params, found, self._matrix, K, drawn).places]

    def _count(self, today: np.ndarray, now: int) -> None:
        """The day's impressions, into the counts by which the long tail is told."""
        values = {name: self._matrix.count(name, now) for name in COUNTERS}
        values |= {"exposure_7d": values["exposure_7d"] + today, "at": np.full(len(today), now)}
        nothing = dict.fromkeys(self._matrix.activity, np.zeros(len(today)))
        self._matrix.apply(self._everything, nothing | values)


def compared(
    skus: int, visits: int, rounds: int, searched: float, seed: int
) -> dict[str, list[tuple[float, float, float]]]:
    """ "without" and "with" the slot -> (Gini, coverage, CTR) of each round."""
    size, used = Size(DEPARTMENTS, skus, visits * (rounds + 1)), load("diversify", Diversify)
    world = make_world(load("simulate", Simulate), size, np.random.default_rng(seed))
    settings = {"without": replace(used, tail_share=0.0), "with": used}
    return {
        name: list(Loop(world, params, visits, searched, seed).run(rounds))
        for name, params in settings.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--skus", type=int, default=1000)
    parser.add_argument("--visits", type=int, default=6000, help="of a round")
    parser.add_argument(
        "--searched", type=float, default=0.3, help="share of visits that begin with a search"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3, help="the table is their mean")
    parser.add_argument("--picture", help="a file for the curves")
    args = parser.parse_args()
    shop = args.skus, args.visits, args.rounds, args.searched
    runs = [compared(*shop, seed) for seed in range(1, args.seeds + 1)]
    found = {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}
    print("| round | Gini without | Gini with | coverage without | coverage with | CTR without | CTR with |")
    print("|---|---|---|---|---|---|---|")
    for number, (off, on) in enumerate(zip(found["without"], found["with"], strict=True), 1):
        cells = f"{off[0]:.3f} | {on[0]:.3f} | {off[1]:.3f} | {on[1]:.3f} | {off[2]:.2%} | {on[2]:.2%}"
        print(f"| {number} | {cells} |", flush=True)
    if args.picture:
        draw(found).savefig(args.picture, dpi=110, metadata={"Software": None})


def draw(found: dict[str, np.ndarray]) -> Figure:
    """Gini, coverage and CTR over the rounds, a line with and one without the slot."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    for at, (axes, told) in enumerate(zip(panels, ("Gini of exposure", "coverage", "CTR"), strict=True)):
        for name, color in (("without", "#7a8793"), ("with", "#1b6ca8")):
            values = [values[at] for values in found[name]]
            axes.plot(
                range(1, len(values) + 1), values, "o-", color=color, label=f"{name} the long tail's slot"
            )
        axes.set(xlabel="round", title=told)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
