"""`endcap order`: what orders the lists that are served, chosen on the validation span.

The same queries are answered by the ranker over the blend, by the blend in its own order and by each single
source alone, which `popular` fills up, all by the stages that serve and by the prior fit. The trees are
those that have not seen validation (data/models/ranker/trial.txt). Their rankings tell, too, what each knob
of `diversify` costs (pipelines/blend/variety.py).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.visitor import history
from feature_repo.files import write_json
from feature_repo.params import load, shop
from feature_repo.places import ORDER, ORDER_PICTURE, TRIAL, VARIETY_PICTURE, at, existing
from pipelines.blend import variety
from pipelines.blend.charts import draw_order, draw_variety
from pipelines.protocol.chosen import OWN, RANKER, learned, settings
from pipelines.protocol.known import Known, answers
from pipelines.protocol.metrics import bootstrap_interval, coverage, ndcg_at
from pipelines.protocol.models import load_models
from pipelines.protocol.queries import QueryParams, make_queries, product_events
from serving.stages import forest
from serving.stages.diversify import Diversify, diversify, draw
from serving.stages.eligibility import eligibility
from serving.stages.rank import Untrained, rank
from serving.stages.retrieve import Sources, fill
from serving.types import Ranked

K = 12
SINGLE = ("ease", "covisit", "als", "tower", "popular")
NO_COLUMNS = np.empty((0, 0), np.float32)  # the list is the order of retrieval: no tree reads it
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OrderParams:
    """Section `order` of params.yaml."""

    queries: int  # asked at most
    min_queries: int  # fewer choose nothing: the ranker serves where it has trees, else the blend
    tolerance: float  # the ranker may be lower than the best by this share where it covers more
    tail_shares: tuple[float, ...]  # of section diversify, whose price is told
    tail_belows: tuple[float, ...]
    trade_offs: tuple[float, ...]


class Listed(NamedTuple):
    """The list of every order for one query, rows (K,) with -1 for an empty place, and what was wanted.

    `varied`: the ranker's list by every setting of `diversify` that is tried; none without trees.
    """

    rows: dict[str, Rows]
    varied: list[variety.Laid]
    wanted: frozenset[int]
    many: int


def main() -> None:
    """Choose on validation what orders the lists: the ranker, the blend or a single source."""
    active, params, queried = shop(), load("order", OrderParams), load("queries", QueryParams)
    trial = forest.trees(existing(TRIAL, "ranker"))
    rng = np.random.default_rng(queried.seed)
    events = product_events()
    queries = make_queries(events, active.valid_from, active.test_from, params.queries, rng)
    trained = not isinstance(trial, Untrained)
    report: dict[str, Any] = {"shop": active.name, "queries": len(queries), "models": {}, "variety": []}
    used = load("diversify", Diversify)
    shares, belows, trades = params.tail_shares, params.tail_belows, params.trade_offs
    tried = variety.settings(used, tail_share=shares, tail_below=belows, trade_off=trades)
    if len(queries) < params.min_queries:
        serves = RANKER if trained else OWN
        told = f"{serves} serves: {len(queries)} queries of validation are too few to choose on"
    else:
        listed, known = _ask(queries, trial, used, tried, queried.processes, set(events["item_id"]))
        candidates = events["item_id"].nunique()
        sessions = np.array([query.session_id for query in queries])
        models = {name: _metrics(name, listed, candidates, sessions, rng) for name in listed[0].rows}
        serves, part = choose(models, params.tolerance), best_part(models)
        report |= {"models": models, "best_part": part}
        if trained:
            lists, wanted = [one.varied for one in listed], [one.wanted for one in listed]
            many = np.array([one.many for one in listed])
            report["variety"] = variety.priced(tried, lists, wanted, many, known)
        told = f"{serves} serves: " + ", ".join(
            f"{name} {models[name]['ndcg_at_12']:.3f}"
            for name in dict.fromkeys((serves, RANKER, OWN, part))
            if name in models
        )
        told += f" (NDCG@12 on {len(queries):,} queries of validation)"
    write_json(at(ORDER), report | {"serves": serves, "told": told})
    draw_order(report | {"serves": serves}, at(ORDER_PICTURE))
    draw_variety(report | asdict(used), at(VARIETY_PICTURE))
    print(f"{ORDER}: {told}")


def choose(models: Mapping[str, Mapping[str, float]], tolerance: float) -> str:
    """The order with the best NDCG@12; the ranker's, where it is at most `tolerance` lower and covers more.

    >>> part = {"ndcg_at_12": 0.2, "coverage_at_12": 0.5}
    >>> choose({"ranker": {"ndcg_at_12": 0.1995, "coverage_at_12": 0.6}, "ease": part}, 0.005)
    'ranker'
    >>> choose({"ranker": {"ndcg_at_12": 0.198, "coverage_at_12": 0.6}, "ease": part}, 0.005)
    'ease'
    """
    best = max(models, key=lambda name: models[name]["ndcg_at_12"])
    if ranker := models.get(RANKER):
        close = ranker["ndcg_at_12"] >= (1 - tolerance) * models[best]["ndcg_at_12"]
        if close and ranker["coverage_at_12"] > models[best]["coverage_at_12"]:
            return RANKER
    return best


def best_part(models: Mapping[str, Mapping[str, float]]) -> str:
    """The single source with the best NDCG@12."""
    return max((name for name in models if name in SINGLE), key=lambda name: models[name]["ndcg_at_12"])


def _ask(
    queries: list[Any],
    trial: Any,
    used: Diversify,
    tried: list[variety.Setting],
    processes: int,
    touched: set[str],
) -> tuple[list[Listed], npt.NDArray[np.bool_]]:
    """What every order lists, and which items, bool (N,), are among `touched`."""
    models, retrieve = load_models("prior"), learned()
    orders = {RANKER: trial} | dict.fromkeys((OWN, *SINGLE), Untrained())
    if isinstance(trial, Untrained):
        del orders[RANKER]
    made = {name: settings(name, retrieve, used) for name in orders}
    row = {item: i for i, item in enumerate(models.ids)}

    def answer(known: Known) -> Listed:
        query, request, visitor, matrix = known
        past, mask = (
            history(visitor, matrix),
            eligibility(request, visitor, matrix, retrieve.bought_days).mask,
        )
        sources = Sources(retrieve, models, visitor, past, matrix, mask)
        drawn, varied = draw(request, visitor), []
        rows = {}
        for name, order in made.items():
            found = fill(order.retrieve.quotas, retrieve.k, sources)
            if name == RANKER:
                ranked = rank(trial, found, visitor, past, matrix)
                varied = variety.laid(tried, ranked, matrix, K, drawn)
            else:
                places = -np.arange(len(found.rows), dtype=np.float32)
                ranked = Ranked(found.rows, places, found.source, NO_COLUMNS)
            best = ranked.rows[diversify(order.diversify, ranked, matrix, K, drawn).places]
            rows[name] = np.pad(best, (0, K - len(best)), constant_values=-1)
        wanted = frozenset(row[i] for i in query.relevant if i in row)
        return Listed(rows, varied, wanted, len(query.relevant))

    listed = list(answers(queries, models.ids, K, "order", answer, processes))
    return listed, np.array([item in touched for item in models.ids])


def _metrics(
    name: str, listed: list[Listed], candidates: int, sessions: npt.NDArray[Any], rng: np.random.Generator
) -> dict[str, float]:
    rows = np.array([one.rows[name] for one in listed])
    hits = np.array([[row in one.wanted for row in one.rows[name].tolist()] for one in listed])
    ndcg = ndcg_at(hits, np.array([one.many for one in listed]), K)
    low, high = bootstrap_interval(ndcg, rng, clusters=sessions)
    return {
        "ndcg_at_12": float(ndcg.mean()),
        "ndcg_low": low,
        "ndcg_high": high,
        "coverage_at_12": coverage(rows, max(candidates, len(np.unique(rows[rows >= 0])))),
    }
