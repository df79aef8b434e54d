"""`endcap evaluate`: session continuation on the test span, our whole path beside the baselines, one run.

Our lists come from serving.pipeline.recommend itself, so what is measured is what will be served: retrieval,
ranker, diversity and eligibility. The baselines rank all candidates of the protocol by one score each, from
the same fit and the same stored rows, among what the shop may show at all: nothing sold out or not yet on
sale. They may list what was bought in earlier visits, which ours may not within its window, so that the
window is judged with the rest.
"""

from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import typer

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import history
from feature_repo.clock import DAY_US, instant
from feature_repo.files import read_json
from feature_repo.folds.parts import been_before
from feature_repo.params import load, shop
from feature_repo.places import ORDER, RESULTS, SCORES, TREES, at, existing, ranker_file
from pipelines.blend.clicks import examples
from pipelines.blend.ladder import ladder
from pipelines.blend.pages import logged_pages
from pipelines.gates.scores import Part, Scores
from pipelines.protocol.chosen import RANKER, Order, chosen
from pipelines.protocol.known import Known, answers
from pipelines.protocol.metrics import (
    OURS,
    arp,
    bootstrap_interval,
    coverage,
    exposures,
    fingerprint,
    gini,
    ndcg_at,
    novelty,
    recall_at,
)
from pipelines.protocol.models import load_models
from pipelines.protocol.moments import write_reference
from pipelines.protocol.queries import Query, QueryParams, make_queries, product_events
from pipelines.protocol.results import write_results
from pipelines.release.scorecard import log_report, read_report, show, write_report
from pipelines.surfaces.slices import slices
from serving.pipeline import Bundle, recommend
from serving.rankers import readers
from serving.stages.diversify import Diversify
from serving.stages.eligibility import eligibility
from serving.stages.odds import Clicks
from serving.stages.rank import Untrained
from serving.stages.retrieve import Sources
from serving.surfaces.craft import Surfaces
from serving.types import Filter

K = 12
BASELINES = ("popularity", "covisit", "als", "ease", "tower")
SOURCES = {"popularity": "popular"}  # of a baseline, where it is called otherwise
COLD_DAYS = 7
NAMES = (
    "ndcg_at_12",
    "ndcg_low",
    "ndcg_high",
    "coverage_at_12",
    "recall_at_12",
    "novelty",
    "arp",
    "gini",
    "recall_at_120",  # of ours alone
)
Rows = npt.NDArray[np.int64]


class Answer(NamedTuple):
    """What every model listed for one query, rows (K,) with -1 for an empty place, and what was wanted."""

    rows: dict[str, Rows]
    relevant: frozenset[int]
    retrieved: float  # recall of our candidates
    slices: dict[str, bool]


class Lists(NamedTuple):
    """What one model listed: rows (q, K), and whether each place was wanted."""

    rows: Rows
    hits: npt.NDArray[np.bool_]


def main(
    show_only: Annotated[
        bool, typer.Option("--show", help="Print the last evaluation, run nothing.")
    ] = False,
) -> None:
    """NDCG@12 and coverage of the release candidate on the test span, beside the baselines."""
    if not show_only:
        order = chosen(load("diversify", Diversify), load("clicks", Clicks))
        candidate, told = release(order), read_json(existing(ORDER, "order"), "run `endcap order`", "told")
        parts: dict[str, Part] = {}
        report = evaluate(candidate, parts) | {"serves": order.serves, "why": told["told"]}
        report["clicks"] = clicked(candidate)
        write_report(report)
        Scores(parts).write(at(SCORES), fingerprint(report))
        write_reference(candidate)
        log_report(report)
    show(read_report())


def release(order: Order) -> Bundle:
    """The final fit in the order that won on validation, as it will be served."""
    ranker = readers.plain(ranker_file(TREES)) if order.serves == RANKER else Untrained()
    parts = load_models("final"), ranker, order.retrieve, order.diversify, load("surfaces", Surfaces)
    return Bundle(*parts, order.clicks)


def evaluate(candidate: Bundle, parts: MutableMapping[str, Part]) -> dict[str, Any]:
    """Ask every query of the test span; the report of data/reports/evaluate.json. Writes results.parquet.

    What each question came to goes into `parts`, beside the best baseline's.
    """
    active, params = shop(), load("queries", QueryParams)
    events, ids = product_events(), candidate.models.ids
    rng = np.random.default_rng(params.seed)
    queries = make_queries(events, active.test_from, None, params.evaluate, rng)
    row = {item: i for i, item in enumerate(ids)}
    mask = np.zeros(len(ids), np.bool_)
    mask[[row[item] for item in set(events["item_id"]) if item in row]] = True

    def answer(known: Known) -> Answer:
        relevant = frozenset(row[item] for item in known.query.relevant if item in row)
        return _asked(candidate, known, relevant, mask)

    answered = list(answers(queries, ids, K, "evaluate", answer, params.processes))
    lists = {name: _lists(name, answered) for name in (OURS, *BASELINES)} if queries else {}
    wanted = np.array([len(q.relevant) for q in queries])
    views = np.bincount([row[i] for i in events["item_id"] if i in row], minlength=len(ids))
    sessions = np.array([q.session_id for q in queries])
    metrics = {name: _metrics(found, wanted, mask, views, sessions, rng) for name, found in lists.items()}
    if queries:
        metrics[OURS]["recall_at_120"] = float(np.mean([found.retrieved for found in answered]))
    else:  # nobody came to a second item: there is no order to be right about
        metrics = {name: dict.fromkeys(NAMES, 0.0) for name in (OURS, *BASELINES)}
    if queries:
        best = max(BASELINES, key=lambda name: metrics[name]["ndcg_at_12"])
        ours, base = (ndcg_at(lists[name].hits, wanted, K) for name in (OURS, best))
        parts[OURS] = Part.of(queries, best, ours, base, [found.slices for found in answered])
    surfaces = slices(candidate, events, parts)
    _keep(queries, ids, answered, lists.get(OURS), wanted)
    last = instant(queries[-1].now) if queries else active.test_from
    return {
        "protocol": "session_continuation",
        "shop": active.name,
        "k": K,
        "queries": len(queries),
        "candidates": int(mask.sum()),
        "span": {
            "from": active.test_from.isoformat(),
            "to": last.isoformat(timespec="microseconds"),
        },
        "models": metrics,
        "slices": _slice_metrics(lists[OURS], wanted, [a.slices for a in answered], int(mask.sum()))
        if queries
        else {},
        "surfaces": surfaces,
    }


def clicked(candidate: Bundle) -> dict[str, dict[str, float]]:
    """Which order would have put the clicks of the test span's logged lists first: pipelines.blend.ladder."""
    params = load("queries", QueryParams)
    rng = np.random.default_rng(params.seed)
    pages = logged_pages(shop().test_from, None, params.pages, rng)
    trees, settings = candidate.ranker, candidate.retrieve
    return ladder(examples(pages, trees, candidate.models, settings, params.processes), candidate.clicks)


def _keep(
    queries: list[Query], ids: Sequence[str], answered: list[Answer], ours: Lists | None, wanted: Rows
) -> None:
    """data/reports/results.parquet: our answer to each query."""
    listed = [[ids[row] for row in found.rows[OURS].tolist() if row >= 0] for found in answered]
    measures = {
        "ndcg_at_12": ndcg_at(ours.hits, wanted, K) if ours else [],
        "recall_at_12": recall_at(ours.hits, wanted, K) if ours else [],
        "recall_at_120": [found.retrieved for found in answered],
    }
    write_results(at(RESULTS), queries, listed, measures, [found.slices for found in answered])


def _asked(candidate: Bundle, known: Known, relevant: frozenset[int], mask: npt.NDArray[np.bool_]) -> Answer:
    _, request, visitor, matrix = known
    served = recommend(request, candidate, visitor, matrix)
    brought = len(relevant.intersection(served.candidates.rows.tolist()))
    may = eligibility(request, visitor, matrix, 0.0).may.both(Filter(lambda rows: mask[rows]))
    best = replace(candidate.retrieve, k=K), candidate.models, visitor, history(visitor, matrix), matrix, may
    sources = Sources(*best)
    rows = {OURS: _places([matrix.row[slot.item_id] for slot in served.slots])}
    rows |= {name: _places(sources.best(SOURCES.get(name, name))) for name in BASELINES}
    return Answer(rows, relevant, brought / len(known.query.relevant), _slices(known, relevant))


def _places(rows: list[int]) -> Rows:
    return np.array([*rows[:K], *[-1] * (K - len(rows))], np.int64)


def _lists(name: str, answered: list[Answer]) -> Lists:
    rows = np.array([found.rows[name] for found in answered])
    return Lists(rows, np.array([[r in a.relevant for r in a.rows[name].tolist()] for a in answered]))


def _metrics(
    found: Lists,
    wanted: npt.NDArray[np.int64],
    mask: npt.NDArray[np.bool_],
    views: npt.NDArray[np.int64],
    sessions: npt.NDArray[np.str_],
    rng: np.random.Generator,
) -> dict[str, float]:
    rows, hits = found
    ndcg = ndcg_at(hits, wanted, K)
    interval = bootstrap_interval(ndcg, rng, clusters=sessions)
    counted = np.where((rows >= 0) & mask[rows], rows, -1)
    values = (
        float(ndcg.mean()),
        *interval,
        coverage(counted, int(mask.sum())),
        float(recall_at(hits, wanted, K).mean()),
        novelty(rows, views),
        arp(rows, views),
        gini(exposures(rows, len(mask))[mask]),
    )
    return dict(zip(NAMES, values, strict=False))


def _slices(known: Known, relevant: frozenset[int]) -> dict[str, bool]:
    """The slices that a query belongs to; a cold item has been seen for less than COLD_DAYS."""
    query, _, visitor, matrix = known
    returning = been_before(visitor.user, visitor.session_id)
    return {
        "first_query": len(query.history) == 1,
        "later_query": len(query.history) > 1,
        "known_user": returning,
        "anonymous": not returning,
        "cold_item": any(_cold(matrix, row, query.now) for row in relevant),
    }


def _cold(matrix: ItemMatrix, row: int, now: int) -> bool:
    first = int(matrix.activity["first_ts"][row])
    return first == 0 or now - first < COLD_DAYS * DAY_US


def _slice_metrics(
    ours: Lists, wanted: npt.NDArray[np.int64], slices: list[dict[str, bool]], candidates: int
) -> dict[str, dict[str, float]]:
    rows, hits = ours
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
