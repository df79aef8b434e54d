"""The whole on lists of bare ids: candidates of all sources, ordered by what validation taught.

Candidates are the union of every source's best. Each is described by what every source says of it, by its
place in the prefix and by its recent popularity, and ordered by one of three: a small net with a softmax
over the list (its loss is that of the one that was wanted), our LightGBM with the project's parameters, or
both added up. Which one, validation decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import torch
from idsources import Floats, Source, ranks
from nextitem import Asked
from peers.contract import Rows, Visits
from torch import Tensor, nn

from feature_repo.params import load
from training.ranking.lambdarank import best_round
from training.ranking.objective import RankerParams, settings

DEPTH = 40  # best of each source
BLOCK = 128  # prefixes at a time, each for itself
NEWEST = (0.01, 0.05, 0.25, 1.0)  # shares of the visits that popularity is counted over
HIDDEN, EPOCHS, LISTS, RATE, DECAY = 64, 12, 256, 2e-3, 1e-3  # of the net
MISSED = 1_000_000


@dataclass(frozen=True)
class Lists:
    """Candidates of q prefixes, one list after the other.

    columns float32 (m, c) · item int64 (m,) · of int64 (m,) ascending, which prefix · wanted int64 (q,)
    """

    columns: Floats
    item: Rows
    of: Rows
    wanted: Rows

    @property
    def label(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return self.item == self.wanted[self.of]

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        before = np.cumsum([0, *(len(part.wanted) for part in parts)])
        of = np.concatenate([part.of + at for part, at in zip(parts, before, strict=False)])
        columns, item, wanted = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("columns", "item", "wanted")
        )
        return cls(columns, item, of, wanted)

    def select(self, of: np.ndarray[Any, np.dtype[np.bool_]]) -> Self:
        """The lists that `of` bool (q,) marks."""
        kept = of[self.of]
        number = np.cumsum(of) - 1
        return replace(
            self,
            columns=self.columns[kept],
            item=self.item[kept],
            of=number[self.of[kept]],
            wanted=self.wanted[of],
        )

    def answerable(self) -> Self:
        """The lists that hold the wanted item."""
        return self.select(np.bincount(self.of[self.label], minlength=len(self.wanted)) > 0)

    def ranks(self, scores: np.ndarray[Any, Any]) -> Rows:
        """int64 (q,): candidates before the wanted one or level with it; MISSED where it is none."""
        own = np.full(len(self.wanted), np.inf)
        own[self.of[self.label]] = scores[self.label]
        before = np.bincount(self.of[scores >= own[self.of]], minlength=len(self.wanted))
        return np.where(np.isfinite(own), before - 1, MISSED)


class Asking:
    """Sources that stand, asked for candidates with their columns."""

    def __init__(self, sources: Mapping[str, Source], visits: Visits) -> None:
        self.sources = dict(sources)
        newest = [visits.starts[-1 - max(1, round(share * len(visits)))] for share in NEWEST]
        counts = [np.bincount(visits.items[at:], minlength=visits.n) for at in newest]
        self._popular = np.log1p(np.array(counts, np.float32)).T  # (n, len(NEWEST))

    def lists(self, prefixes: Sequence[Rows], wanted: Rows) -> tuple[Lists, dict[str, Rows]]:
        """Candidates of at most BLOCK prefixes, and the rank of the wanted item by each source alone."""
        scores = np.array([source.scores(prefixes) for source in self.sources.values()])  # (s, b, n)
        alone = {name: ranks(one, wanted) for name, one in zip(self.sources, scores, strict=True)}
        of, item = union(scores, DEPTH)
        columns = [*told(scores, of, item), *within(prefixes, of, item), *self._popular[item].T]
        return Lists(np.stack(columns, axis=1).astype(np.float32), item, of, wanted), alone

    def all(self, asked: Asked) -> tuple[Lists, dict[str, Rows]]:
        """As `lists`, of any number of prefixes."""
        parts, alone = [], []
        for at in range(0, len(asked.wanted), BLOCK):
            part, rank = self.lists(asked.prefixes[at : at + BLOCK], asked.wanted[at : at + BLOCK])
            parts.append(part)
            alone.append(rank)
        return Lists.joined(parts), {n: np.concatenate([one[n] for one in alone]) for n in self.sources}


def union(scores: Floats, depth: int) -> tuple[Rows, Rows]:
    """Prefix and item of every candidate: the `depth` best of each source, once; scores (s, b, n)."""
    best = torch.topk(torch.from_numpy(scores), min(depth, scores.shape[2])).indices.numpy()  # (s, b, depth)
    every = np.sort(np.moveaxis(best, 0, 1).reshape(scores.shape[1], -1), axis=1)
    fresh = np.diff(every, axis=1, prepend=-1) > 0
    of = np.nonzero(fresh)[0]
    return of, every[fresh]


def told(scores: Floats, of: Rows, item: Rows) -> list[Floats]:
    """Per source, logs: its score as a share of all, against the list's best, and its rank in the list."""
    columns = []
    for one in scores:
        value = one[of, item]
        top, total = (np.maximum(whole, 1e-12) for whole in (one.max(axis=1), one.sum(axis=1)))
        order = np.lexsort((item, -value, of))
        rank = np.empty(len(of))
        rank[order] = np.arange(len(of)) - np.searchsorted(of, of)
        columns += [np.log(value / total[of] + 1e-6), np.log(value / top[of] + 1e-4), np.log1p(rank)]
    return columns


def within(prefixes: Sequence[Rows], of: Rows, item: Rows) -> list[Floats]:
    """Where the candidate stands in the prefix: weight of its places, times, the last one; length of it."""
    place = np.concatenate([np.arange(len(one))[::-1] for one in prefixes])  # 0 is the newest
    whose = np.repeat(np.arange(len(prefixes)), [len(one) for one in prefixes])
    key = int(max(item.max(initial=0), max(one.max() for one in prefixes))) + 1
    pair, inverse = np.unique(whose * key + np.concatenate(prefixes), return_inverse=True)
    weight, times = np.bincount(inverse, 0.7**place), np.bincount(inverse)
    last = np.bincount(inverse, place == 0)
    at = np.minimum(np.searchsorted(pair, of * key + item), len(pair) - 1)
    held = pair[at] == of * key + item
    length = np.array([len(one) for one in prefixes])
    distinct = np.bincount(pair // key, minlength=len(prefixes))
    return [
        held * weight[at],
        held * np.log1p(times[at]),
        held * last[at],
        held * 1.0,
        np.log(length)[of],
        (distinct / length)[of],
    ]


class Net(nn.Module):
    """Columns to a score: a linear part and one hidden layer beside it."""

    def __init__(self, columns: Floats) -> None:
        super().__init__()
        width = columns.shape[1]
        self.register_buffer("mean", torch.from_numpy(columns.mean(axis=0)))
        self.register_buffer("spread", torch.from_numpy(columns.std(axis=0) + 1e-3))
        self.linear = nn.Linear(width, 1, bias=False)
        self.hidden = nn.Sequential(nn.Linear(width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1, bias=False))
        nn.init.zeros_(self.linear.weight)

    def forward(self, columns: Tensor) -> Tensor:
        x = (columns - self.mean) / self.spread
        found: Tensor = (self.linear(x) + self.hidden(x)).squeeze(-1)
        return found

    @torch.no_grad()
    def predict(self, columns: Floats) -> Floats:
        found: Floats = self(torch.from_numpy(columns)).numpy()
        return found


def fit_net(lists: Lists, seed: int) -> Net:
    """Softmax over each list that holds the wanted item; a cosine ends at a twentieth of the rate."""
    lists = lists.answerable()
    torch.manual_seed(seed)
    rng, net = np.random.default_rng(seed), Net(lists.columns)
    size = np.bincount(lists.of, minlength=len(lists.wanted))
    first = np.cumsum(size) - size
    target = np.flatnonzero(lists.label) - first
    columns = torch.from_numpy(lists.columns)
    steps = EPOCHS * -(-len(size) // LISTS)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, RATE / 20)
    for _ in range(EPOCHS):
        order = rng.permutation(len(size))
        for at in range(0, len(order), LISTS):
            chosen = order[at : at + LISTS]
            span = np.arange(size[chosen].max())
            there = torch.from_numpy(span < size[chosen, None])
            rows = torch.from_numpy(first[chosen, None] + np.minimum(span, size[chosen, None] - 1))
            scores = net(columns[rows]).masked_fill(~there, -torch.inf)
            loss = nn.functional.cross_entropy(scores, torch.from_numpy(target[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            falling.step()
    return net


def fit_trees(lists: Lists, judged: Lists | None, rounds: int | None) -> tuple[lgb.Booster, int]:
    """Our ranker's objective; the number of trees is that which `judged` likes best, or `rounds`."""
    params = load("ranker", RankerParams)

    def data(of: Lists) -> lgb.Dataset:
        of = of.answerable()
        return lgb.Dataset(of.columns, of.label.astype(np.int8), group=np.bincount(of.of))

    curves: dict[str, dict[str, list[float]]] = {}
    watch = {}
    if judged is not None:
        stop = lgb.early_stopping(params.patience, verbose=False)
        watch = {"valid_sets": [data(judged)], "callbacks": [stop, lgb.record_evaluation(curves)]}
    asked = settings(params) | {"metric": "ndcg", "eval_at": [params.k]}
    booster = lgb.train(asked, data(lists), rounds or params.max_rounds, **watch)
    return booster, rounds or best_round(curves["valid_0"][f"ndcg@{params.k}"])


@dataclass(frozen=True)
class Whole:
    """An order of candidates. `net` or `trees` may be missing: then the other decides alone."""

    net: Net | None
    trees: lgb.Booster | None
    rounds: int

    def scores(self, lists: Lists) -> Floats:
        """float32 (m,), comparable within a list."""
        found = np.zeros(len(lists.item), np.float32)
        if self.net is not None:
            found += even(self.net.predict(lists.columns), lists)
        if self.trees is not None:
            found += even(self.trees.predict(lists.columns, num_iteration=self.rounds), lists)
        return found


def even(scores: np.ndarray[Any, Any], lists: Lists) -> Floats:
    """The scores of each list with mean 0 and spread 1."""
    size = np.maximum(np.bincount(lists.of, minlength=len(lists.wanted)), 1)
    mean = np.bincount(lists.of, scores, len(size)) / size
    spread = np.sqrt(np.maximum(np.bincount(lists.of, scores**2, len(size)) / size - mean**2, 1e-12))
    found: Floats = ((scores - mean[lists.of]) / spread[lists.of]).astype(np.float32)
    return found


def taught(
    lists: Lists, teach: np.ndarray[Any, np.dtype[np.bool_]], seed: int
) -> tuple[Whole, dict[str, Rows]]:
    """The order that the lists outside `teach` bool (q,) like best, taught by all lists; and the ranks that
    each of the three orders gave those outside.
    """
    before, after = lists.select(teach), lists.select(~teach)
    trial, rounds = fit_trees(before, after, None)
    net = fit_net(before, seed)
    tried = {
        "net": Whole(net, None, 0),
        "trees": Whole(None, trial, rounds),
        "both": Whole(net, trial, rounds),
    }
    found = {name: after.ranks(one.scores(after)) for name, one in tried.items()}
    best = max(found, key=lambda name: float(np.where(found[name] < 20, 1 / (found[name] + 1), 0).mean()))
    return Whole(
        fit_net(lists, seed) if best != "trees" else None,
        fit_trees(lists, None, rounds)[0] if best != "net" else None,
        rounds,
    ), {best: found.pop(best), **found}
