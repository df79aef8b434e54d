"""Peers and ours on a shop whose pipeline has run: settings by validation, then the test span, once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
from asked import OWN_PARTS, RANKED, RETRIEVED, WHOLE, Case, K, ask, our_orders
from peers.contract import Peer, Rows, Settings, Visits, best
from peers.roster import PEERS, choose
from verdict import Result, measured

from feature_repo.params import load, shop
from pipelines.protocol.metrics import coverage, ndcg_at, recall_at
from pipelines.protocol.queries import QueryParams, make_queries, product_events
from serving.pipeline import Bundle
from training.dataset import read_catalogue

NDCG = "ndcg_at_12"
OURS = (WHOLE, RANKED, RETRIEVED)


def cases_of(sample: int | None, validation: int) -> tuple[list[Case], list[Case]]:
    """Queries of the validation span, without our lists, and of the test span, with them."""
    active, params, ids = shop(), load("queries", QueryParams), read_catalogue().item_ids
    events = product_events()

    def of(start: datetime, end: datetime | None, limit: int, orders: dict[str, Bundle]) -> list[Case]:
        queries = make_queries(events, start, end, limit, np.random.default_rng(params.seed))
        return ask(queries, orders, ids, params.processes, "test" if orders else "validation")

    return (
        of(active.valid_from, active.test_from, validation, {}),
        of(active.test_from, None, sample or params.evaluate, our_orders()),
    )


def listed(
    peer: Peer, asked: Settings, cases: Sequence[Case], popular: Any, barred: bool = True
) -> tuple[Rows, float]:
    """The peer's lists (q, K), -1 for an empty place, and the mean CPU seconds of one: queries one by one."""
    lists = np.full((len(cases), K), -1)
    settings = {name: value for name, value in asked.items() if name != "earlier"}
    seconds = 0.0
    for number, case in enumerate(cases):
        eligible = case.eligible(len(popular), barred)
        began = time.process_time()
        rows = case.past.seen(asked["earlier"])
        scores = peer.scores(rows, **settings) if len(rows) else np.zeros(len(popular))
        found = best(scores, popular, eligible, K)
        seconds += time.process_time() - began
        lists[number, : len(found)] = found
    return lists, seconds / max(1, len(cases))


def ndcg_of(lists: Rows, cases: Sequence[Case]) -> tuple[Any, Any]:
    """Per query NDCG@12 and recall@12, (q,) each."""
    hits = np.array(
        [[row in case.wanted for row in one] for one, case in zip(lists.tolist(), cases, strict=True)]
    )
    wanted = np.array([case.many for case in cases])
    return ndcg_at(hits, wanted, K), recall_at(hits, wanted, K)


def result_of(runs: Sequence[Rows], cases: Sequence[Case], candidates: int, told: dict[str, Any]) -> Result:
    """Of one model, a run per seed."""
    first = np.array([len(case.query.history) == 1 for case in cases])
    found = [ndcg_of(lists, cases) for lists in runs]
    ndcg = np.array([one for one, _ in found])
    shown = [coverage(lists, max(candidates, len(np.unique(lists)))) for lists in runs]
    values = {NDCG: ndcg, "recall_at_12": np.array([recall for _, recall in found])}
    values["first_query"] = np.where(first, ndcg, np.nan)
    return Result(values, told | {"coverage_at_12": float(np.mean(shown))})


def run_peer(
    name: str,
    before: tuple[Visits, Visits],
    cases: tuple[list[Case], list[Case]],
    candidates: int,
    seeds: list[int],
) -> Result:
    """Choose on validation, fit again on all that comes before the test span, ask it once per seed."""
    kind, popular = PEERS[name], before[1].counts()

    def judge(peer: Peer, settings: Settings) -> float:
        lists, _ = listed(peer, settings, cases[0], before[0].counts())
        return float(ndcg_of(lists, cases[0])[0].mean())

    chosen = choose(kind(), before[0], seeds[0], judge, (False, True))
    runs, costs, unbarred, took = [], [], [], []
    for seed in seeds if kind.random else seeds[:1]:
        peer = kind()
        costs.append(measured(partial(peer.fit, before[1], seed, **chosen.fit)))
        lists, seconds = listed(peer, chosen.ask, cases[1], popular)
        runs.append(lists)
        took.append(seconds)
        unbarred.append(
            ndcg_of(listed(peer, chosen.ask, cases[1], popular, barred=False)[0], cases[1])[0].mean()
        )
    told = {
        "fit": chosen.fit,
        "ask": chosen.ask,
        "validation": chosen.reached,
        "tried": chosen.tried,
        "fit_cpu_s": float(np.median([cost.cpu_seconds for cost in costs])),
        "fit_gb": max(cost.peak_gb for cost in costs),
        "answer_ms": 1000 * float(np.median(took)),
        "unbarred": float(np.mean(unbarred)),
    }
    return result_of(runs, cases[1], candidates, told)


def run_ours(cases: list[Case], candidates: int) -> dict[str, Result]:
    """Our lists; the fits are those of the pipeline, whose cost is not counted here."""
    found = {}
    for name in (*OURS, *OWN_PARTS):
        if name in cases[0].ours:
            lists = np.array(
                [np.pad(c.ours[name], (0, K - len(c.ours[name])), constant_values=-1) for c in cases]
            )
            told = {"answer_ms": 1000 * float(np.mean([case.seconds[name] for case in cases]))}
            found[name] = result_of([lists], cases, candidates, told)
    return found
