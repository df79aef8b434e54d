"""diginetica, lists of ids: the next item of a visit among all items, as the papers ask it.

P@20 is the share of prefixes whose next item stands among the first 20, MRR@20 the mean of 1 / its place.
The prefix's own items stay eligible, for a shopper goes back to them. Settings are chosen on the last 5 % of
the training visits, which stand in order of time, for peers that learned the rest; then they learn all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from peers.contract import Peer, Rows, Settings, Visits, best
from peers.roster import PEERS, choose
from verdict import Result, measured

from feature_repo.errors import DataError

FILES = ("train_sessions.parquet", "test_prefixes.parquet")
K = 20
VALIDATION_SHARE = 0.05
MRR = "mrr_at_20"


class Asked(NamedTuple):
    """Prefixes, oldest item first, the item that came next, and the visit of each."""

    prefixes: list[Rows]
    wanted: Rows
    visits: Rows

    def drawn(self, count: int | None, seed: int) -> Asked:
        """`count` of the questions, in order; all for None."""
        if count is None or count >= len(self.wanted):
            return self
        kept = np.sort(np.random.default_rng(seed).permutation(len(self.wanted))[:count])
        return Asked([self.prefixes[row] for row in kept], self.wanted[kept], self.visits[kept])


def read(folder: Path) -> tuple[Visits, Asked]:
    """The training visits, and the test prefixes. Raises DataError where a file is missing."""
    for name in FILES:
        if not (folder / name).is_file():
            raise DataError(folder / name, "is missing", next_step="name its folder by --data")
    train, test = (pd.read_parquet(folder / name) for name in FILES)
    train = train["items"]
    known = np.unique(np.concatenate([*train, *test["prefix"], test["next_item"].to_numpy()]))
    row = {item: at for at, item in enumerate(known.tolist())}
    visits = Visits.of([[row[item] for item in visit] for visit in train], len(known))
    prefixes = [np.array([row[item] for item in prefix], np.int64) for prefix in test["prefix"]]
    wanted = np.array([row[item] for item in test["next_item"]])
    return visits, Asked(prefixes, wanted, visits_of(prefixes))


def visits_of(prefixes: Sequence[Rows]) -> Rows:
    """Which visit each prefix is of: one that shares its beginning with its neighbour is of the same.

    >>> visits_of([np.array(p) for p in ([1, 2, 3], [1, 2], [1], [4, 5], [4])]).tolist()
    [0, 0, 0, 1, 1]
    """
    new = [0]
    for one, other in pairwise(prefixes):
        n = min(len(one), len(other))
        new.append(int(abs(len(one) - len(other)) != 1 or not np.array_equal(one[:n], other[:n])))
    return np.cumsum(new)


def questions(visits: Visits, first: int) -> Asked:
    """Every prefix of the visits from `first` on."""
    prefixes, wanted, of = [], [], []
    for visit in range(first, len(visits)):
        items = visits[visit]
        for length in range(1, len(items)):
            prefixes.append(items[:length])
            wanted.append(items[length])
            of.append(visit)
    return Asked(prefixes, np.array(wanted), np.array(of))


def places(peer: Peer, ask: Settings, asked: Asked, popular: Any) -> tuple[Rows, float]:
    """Place of the wanted item in the list of each prefix, 0 where it is not listed; CPU seconds of one."""
    settings = {name: value for name, value in ask.items() if name != "earlier"}
    every, found, seconds = np.ones(len(popular), np.bool_), np.zeros(len(asked.wanted), np.int64), 0.0
    for number, (prefix, wanted) in enumerate(zip(asked.prefixes, asked.wanted.tolist(), strict=True)):
        began = time.process_time()
        listed = best(peer.scores(prefix, **settings), popular, every, K)
        seconds += time.process_time() - began
        hit = np.flatnonzero(listed == wanted)
        found[number] = hit[0] + 1 if len(hit) else 0
    return found, seconds / max(1, len(asked.wanted))


def reciprocal(found: Rows) -> Any:
    """1 / place, 0 where there is none.

    >>> reciprocal(np.array([1, 0, 4])).tolist()
    [1.0, 0.0, 0.25]
    """
    return np.where(found > 0, 1.0 / np.maximum(found, 1), 0.0)


def run(name: str, visits: Visits, asked: Asked, validation: int, seeds: list[int]) -> Result:
    """Choose on the newest visits of training, fit on all, ask every prefix of `asked` once per seed."""
    kind, cut = PEERS[name], round((1 - VALIDATION_SHARE) * len(visits))
    earlier = Visits(visits.items[: visits.starts[cut]], visits.starts[: cut + 1], visits.n)
    tried = questions(visits, cut).drawn(validation, seed=1)

    def judge(peer: Peer, ask: Settings) -> float:
        return float(reciprocal(places(peer, ask, tried, earlier.counts())[0]).mean())

    chosen = choose(kind(), earlier, seeds[0], judge, (True,))
    found, costs, took = [], [], []
    for seed in seeds if kind.random else seeds[:1]:
        peer = kind()
        costs.append(measured(partial(peer.fit, visits, seed, **chosen.fit)))
        listed, seconds = places(peer, chosen.ask, asked, visits.counts())
        found.append(listed)
        took.append(seconds)
    values = {"p_at_20": np.array([one > 0 for one in found], np.float64)}
    values[MRR] = np.array([reciprocal(one) for one in found])
    told = {
        "fit": chosen.fit,
        "ask": chosen.ask,
        "validation": chosen.reached,
        "tried": chosen.tried,
        "fit_cpu_s": float(np.median([cost.cpu_seconds for cost in costs])),
        "fit_gb": max(cost.peak_gb for cost in costs),
        "answer_ms": 1000 * float(np.median(took)),
    }
    return Result(values, told)
