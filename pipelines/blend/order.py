"""`endcap order`: what orders the lists that are served, chosen on the validation span.

The same queries are answered by the ranker over the blend, by the blend in its own order and by each single
source alone, which `popular` fills up, all by the stages that serve and by the prior fit. The trees are
those that have not seen validation (data/models/ranker/trial.*). Their rankings tell, too, what each knob
of `diversify` costs (pipelines/blend/variety.py).

Where the ranker serves, the clicks on the shop's logged lists weigh its score against what attracts anybody
(pipelines/blend/clicks.py). In a visit that has begun as much of the attraction is taken as costs at most
`cost` of NDCG@12: visits follow what they are shown. No query asks before the first contact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.visitor import history
from feature_repo.files import write_json
from feature_repo.params import load, shop
from feature_repo.places import CHANCES_PICTURE, ORDER, ORDER_PICTURE, TRIAL, VARIETY_PICTURE, at, ranker_file
from pipelines.blend import chances, clicks, variety
from pipelines.blend.charts import draw_chances, draw_order, draw_variety
from pipelines.blend.pages import logged_pages
from pipelines.protocol.chosen import OWN, RANKER, learned, settings
from pipelines.protocol.known import Known, answers
from pipelines.protocol.metrics import bootstrap_interval, coverage, ndcg_at
from pipelines.protocol.models import load_models
from pipelines.protocol.queries import QueryParams, make_queries, product_events
from serving.explore.chance import draw
from serving.rankers import readers
from serving.stages.diversify import Diversify, diversify
from serving.stages.eligibility import eligibility
from serving.stages.odds import Clicks
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
    pages: int  # logged lists at most, whose clicks are looked at
    min_clicks: int  # of a phase; fewer teach nothing
    shares: tuple[float, ...]  # of the attraction that clicks speak for in a visit
    cost: float  # share of NDCG@12 that it may cost there
    min_calibrated: int  # clicks on logged lists, below which no chance of a click is told


class Listed(NamedTuple):
    """The list of every order for one query, rows (K,) with -1 for an empty place, and what was wanted.

    `varied`: the ranker's list by every setting of `diversify` that is tried; none without trees. `pulled`:
    by every share of the attraction, best first.
    """

    rows: dict[str, Rows]
    varied: list[variety.Laid]
    pulled: list[Rows]
    wanted: frozenset[int]
    many: int


def main() -> None:
    """Choose on validation what orders the lists: the ranker, the blend or a single source."""
    active, params, queried = shop(), load("order", OrderParams), load("queries", QueryParams)
    trial = readers.plain(ranker_file(TRIAL))
    rng = np.random.default_rng(queried.seed)
    events = product_events()
    queries = make_queries(events, active.valid_from, active.test_from, params.queries, rng)
    trained = not isinstance(trial, Untrained)
    report: dict[str, Any] = {"shop": active.name, "queries": len(queries), "models": {}, "variety": []}
    used = load("diversify", Diversify)
    shares, belows, trades = params.tail_shares, params.tail_belows, params.trade_offs
    tried = variety.settings(used, tail_share=shares, tail_below=belows, trade_off=trades)
    shipped = load("clicks", Clicks)
    pages = logged_pages(active.valid_from, active.test_from, params.pages, rng)
    shown = clicks.examples(pages, trial, load_models("prior"), learned(), queried.processes)
    report["clicks"] = weights = clicks.learn(shown, shipped, params.min_clicks)
    if len(queries) < params.min_queries:
        serves = RANKER if trained else OWN
        told = f"{serves} serves: {len(queries)} queries of validation are too few to choose on"
    else:
        pulls = [_pulled(shipped, weights, share) for share in params.shares]
        listed, known = _ask(queries, trial, used, tried, pulls, queried.processes, set(events["item_id"]))
        candidates = events["item_id"].nunique()
        sessions = np.array([query.session_id for query in queries])
        models = {name: _metrics(name, listed, candidates, sessions, rng) for name in listed[0].rows}
        serves, part = choose(models, params.tolerance), best_part(models)
        report |= {"models": models, "best_part": part}
        if trained:
            lists, wanted = [one.varied for one in listed], [one.wanted for one in listed]
            many = np.array([one.many for one in listed])
            report["variety"] = variety.priced(tried, lists, wanted, many, known)
            weights["shares"] = _shares(params.shares, listed, many)
        told = f"{serves} serves: " + ", ".join(
            f"{name} {models[name]['ndcg_at_12']:.3f}"
            for name in dict.fromkeys((serves, RANKER, OWN, part))
            if name in models
        )
        told += f" (NDCG@12 on {len(queries):,} queries of validation)"
    if serves == RANKER:
        share = affordable(weights.get("shares", []), params.cost)
        weights["attraction"]["visit"] *= share
    else:  # its scores are not those that were learned from
        for name in ("returning", "visit"):
            weights["ranker"][name], weights["attraction"][name] = 1.0, 0.0
    weights["chances"] = chances.calibrated(shown, weights, params.min_calibrated)
    draw_chances(weights["chances"], active.name, at(CHANCES_PICTURE))
    write_json(at(ORDER), report | {"serves": serves, "told": told})
    draw_order(report | {"serves": serves}, at(ORDER_PICTURE))
    draw_variety(report | asdict(used), at(VARIETY_PICTURE))
    print(f"{ORDER}: {told}")
    print(f"{ORDER}: {clicks.told(weights)}")
    print(f"{ORDER}: {chances.told(weights['chances'])}")


def affordable(shares: Sequence[Mapping[str, float]], cost: float) -> float:
    """The greatest share of the attraction that lowers NDCG@12 by at most `cost` of it; else 0.

    >>> affordable([{"share": 0, "ndcg_at_12": 0.3}, {"share": 0.5, "ndcg_at_12": 0.298}], 0.01)
    0.5
    """
    without = next((row["ndcg_at_12"] for row in shares if row["share"] == 0), 0.0)
    return max((row["share"] for row in shares if row["ndcg_at_12"] >= (1 - cost) * without), default=0.0)


def _pulled(shipped: Clicks, weights: Mapping[str, Any], share: float) -> Clicks:
    """The learned weights with `share` of the attraction in a visit."""
    attraction = weights["attraction"] | {"visit": share * weights["attraction"]["visit"]}
    return replace(shipped, ranker=weights["ranker"], attraction=attraction)


def _shares(
    shares: Sequence[float], listed: list[Listed], many: npt.NDArray[np.int64]
) -> list[dict[str, float]]:
    """NDCG@12 of the ranker's list under each share of the attraction."""
    hits = [[[row in one.wanted for row in rows.tolist()] for rows in one.pulled] for one in listed]
    ndcg = [ndcg_at(np.array(of_share), many, K).mean() for of_share in zip(*hits, strict=True)]
    return [{"share": share, "ndcg_at_12": float(mean)} for share, mean in zip(shares, ndcg, strict=True)]


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
    pulls: list[Clicks],
    processes: int,
    touched: set[str],
) -> tuple[list[Listed], npt.NDArray[np.bool_]]:
    """What every order lists, and which items, bool (N,), are among `touched`."""
    models, retrieve = load_models("prior"), learned()
    orders = {RANKER: trial} | dict.fromkeys((OWN, *SINGLE), Untrained())
    if isinstance(trial, Untrained):
        del orders[RANKER]
    made = {name: settings(name, retrieve, used, pulls[0]) for name in orders}
    row = {item: i for i, item in enumerate(models.ids)}

    def answer(known: Known) -> Listed:
        query, request, visitor, matrix = known
        past = history(visitor, matrix)
        may = eligibility(request, visitor, matrix, retrieve.bought_days).may
        sources = Sources(retrieve, models, visitor, past, matrix, may)
        drawn, varied, pulled = draw(request, visitor), [], []
        rows = {}
        for name, order in made.items():
            found = fill(order.retrieve.quotas, retrieve.k, sources)
            if name == RANKER:
                ranked = rank(trial, found, visitor, past, matrix)
                varied = variety.laid(tried, ranked, matrix, K, drawn)
                scored = [pull.score(past, ranked.score, models.attraction[ranked.rows]) for pull in pulls]
                pulled = [_padded(ranked.rows[np.argsort(-score, kind="stable")[:K]]) for score in scored]
            else:
                places = -np.arange(len(found.rows), dtype=np.float32)
                ranked = Ranked(found.rows, places, found.source, NO_COLUMNS)
            best = ranked.rows[diversify(order.diversify, ranked, matrix, K, drawn).places]
            rows[name] = _padded(best)
        wanted = frozenset(row[i] for i in query.relevant if i in row)
        return Listed(rows, varied, pulled, wanted, len(query.relevant))

    listed = list(answers(queries, models.ids, K, "order", answer, processes))
    return listed, np.array([item in touched for item in models.ids])


def _padded(rows: Rows) -> Rows:
    return np.pad(rows, (0, K - len(rows)), constant_values=-1)


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
