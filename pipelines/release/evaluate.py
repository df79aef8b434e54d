"""`endcap evaluate`: session continuation on the test span, our whole path beside the baselines, one run.

Our lists come from serving.pipeline.recommend itself, so what is measured is what will be served: retrieval,
ranker, diversity and eligibility. The baselines rank all candidates of the protocol by one score each, from
the same fit and the same stored rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import history
from feature_repo.errors import DataError
from feature_repo.folds.fold import DAY_US
from feature_repo.folds.parts import been_before
from feature_repo.params import load, root, shop
from pipelines.protocol.known import Visit, visits
from pipelines.protocol.metrics import (
    arp,
    bootstrap_interval,
    coverage,
    exposures,
    gini,
    ndcg_at,
    novelty,
    recall_at,
)
from pipelines.protocol.models import Candidate, load_fit
from pipelines.protocol.moments import write_reference
from pipelines.protocol.queries import Query, make_queries, product_events
from pipelines.protocol.ranker_data import QueryParams
from pipelines.release.scorecard import read_report, show, write_report
from serving.pipeline import recommend
from serving.stages.diversify import Diversify
from serving.stages.forest import StockForest
from serving.stages.retrieve import EVERY, Retrieve, als_scores, score_catalogue, top, user_vector

K = 12
OURS = "endcap"
BASELINES = ("popularity", "covisit", "als", "ease")
COLD_DAYS = 7
Rows = npt.NDArray[np.int64]


@dataclass
class Lists:
    """What one model listed: rows (q, K), -1 for an empty place, and whether each place was wanted."""

    rows: list[Rows] = field(default_factory=list)
    hits: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    retrieved: list[float] = field(default_factory=list)  # recall of the candidates, ours only

    def add(self, rows: Rows, relevant: set[int]) -> None:
        places = np.full(K, -1, np.int64)
        places[: len(rows)] = rows[:K]
        self.rows.append(places)
        self.hits.append(np.array([row in relevant for row in places.tolist()]))


def main(
    show_only: Annotated[
        bool, typer.Option("--show", help="Print the last evaluation, run nothing.")
    ] = False,
) -> None:
    """NDCG@12 and coverage of the release candidate on the test span, beside the baselines."""
    if not show_only:
        release = candidate()
        write_report(evaluate(release))
        write_reference(release)
    show(read_report())


def candidate() -> Candidate:
    """The final fit with the ranker, as it will be served."""
    return Candidate(
        **vars(load_fit("final")),
        ranker=StockForest(root() / "data" / "models" / "ranker" / "ranker.txt"),
        retrieve=load("retrieve", Retrieve),
        diversify=load("diversify", Diversify),
    )


def evaluate(release: Candidate) -> dict[str, Any]:
    """Ask every query of the test span; the report of data/reports/evaluate.json."""
    active, params = shop(), load("queries", QueryParams)
    events = product_events(root() / "data" / "raw")
    rng = np.random.default_rng(params.seed)
    queries = make_queries(events, active.test_from, None, params.evaluate, rng)
    row = {item: i for i, item in enumerate(release.ids)}
    mask = np.zeros(len(release.ids), np.bool_)
    mask[[row[item] for item in set(events["item_id"]) if item in row]] = True
    if not queries:
        problem = f"no session with two items since {active.test_from.isoformat()}"
        raise DataError("data/raw/events.parquet", problem, next_step="move test_from of the shop")
    lists = {name: Lists() for name in (OURS, *BASELINES)}
    slices: list[dict[str, bool]] = []
    for visit in visits(queries, release.ids, K, "evaluate"):
        relevant = {row[item] for item in visit.query.relevant if item in row}
        _ask(release, visit, relevant, mask, lists)
        slices.append(_slices(visit, relevant))
    wanted = np.array([len(q.relevant) for q in queries])
    views = np.bincount([row[i] for i in events["item_id"] if i in row], minlength=len(release.ids))
    sessions = np.array([q.session_id for q in queries])
    models = {name: _metrics(found, wanted, mask, views, sessions, rng) for name, found in lists.items()}
    models[OURS]["recall_at_120"] = float(np.mean(lists[OURS].retrieved))
    return {
        "protocol": "session_continuation",
        "shop": active.name,
        "k": K,
        "queries": len(queries),
        "candidates": int(mask.sum()),
        "span": {"from": active.test_from.isoformat(), "to": _instant(queries)},
        "models": models,
        "slices": _slice_metrics(lists[OURS], wanted, slices, int(mask.sum())),
    }


def _ask(
    release: Candidate, visit: Visit, relevant: set[int], mask: npt.NDArray[np.bool_], lists: dict[str, Lists]
) -> None:
    _, request, visitor, matrix = visit
    served = recommend(request, release, visitor, matrix)
    lists[OURS].add(np.array([matrix.row[slot.item_id] for slot in served.slots], np.int64), relevant)
    brought = len(relevant.intersection(served.candidates.rows.tolist()))
    lists[OURS].retrieved.append(brought / len(visit.query.relevant))
    past = history(visitor, matrix)
    allowed = mask.copy()
    allowed[matrix.rows_of(visit.query.history)] = False
    scores = score_catalogue(release.retrieve, release, user_vector(release, visitor, past), past)
    by_name: dict[str, npt.NDArray[Any]] = {
        "popularity": matrix.popularity() + EVERY,
        "covisit": scores.covisit,
        "als": als_scores(release.als_items, past.rows),
        "ease": scores.ease,
    }
    for name, score in by_name.items():
        lists[name].add(np.array(top(score, allowed, K), np.int64), relevant)


def _metrics(
    found: Lists,
    wanted: npt.NDArray[np.int64],
    mask: npt.NDArray[np.bool_],
    views: npt.NDArray[np.int64],
    sessions: npt.NDArray[np.str_],
    rng: np.random.Generator,
) -> dict[str, float]:
    rows, hits = np.array(found.rows), np.array(found.hits)
    ndcg = ndcg_at(hits, wanted, K)
    low, high = bootstrap_interval(ndcg, rng, clusters=sessions)
    counted = np.where((rows >= 0) & mask[rows], rows, -1)
    return {
        "ndcg_at_12": float(ndcg.mean()),
        "ndcg_low": low,
        "ndcg_high": high,
        "coverage_at_12": coverage(counted, int(mask.sum())),
        "recall_at_12": float(recall_at(hits, wanted, K).mean()),
        "novelty": novelty(rows, views),
        "arp": arp(rows, views),
        "gini": gini(exposures(rows, len(mask))[mask]),
    }


def _slices(visit: Visit, relevant: set[int]) -> dict[str, bool]:
    """The slices that a query belongs to; a cold item has been seen for less than COLD_DAYS."""
    query, _, visitor, matrix = visit
    known = been_before(visitor.user, visitor.session_id)
    return {
        "first_query": len(query.history) == 1,
        "later_query": len(query.history) > 1,
        "known_user": known,
        "anonymous": not known,
        "cold_item": any(_cold(matrix, row, query.now) for row in relevant),
    }


def _cold(matrix: ItemMatrix, row: int, now: int) -> bool:
    first = int(matrix.activity["first_ts"][row])
    return first == 0 or now - first < COLD_DAYS * DAY_US


def _slice_metrics(
    ours: Lists, wanted: npt.NDArray[np.int64], slices: list[dict[str, bool]], candidates: int
) -> dict[str, dict[str, float]]:
    rows, hits = np.array(ours.rows), np.array(ours.hits)
    ndcg = ndcg_at(hits, wanted, K)
    out = {}
    for name in slices[0]:
        inside = np.array([s[name] for s in slices])
        if inside.any():
            out[name] = {
                "queries": int(inside.sum()),
                "ndcg_at_12": float(ndcg[inside].mean()),
                "coverage_at_12": len(np.unique(rows[inside][rows[inside] >= 0])) / candidates,
            }
    return out


def _instant(queries: list[Query]) -> str:
    return str(np.datetime64(queries[-1].now, "us")) + "+00:00"
