"""`endcap blend`: quotas of the sources, and how long a purchase is not shown again, learned from the shop.

At query points between rank_from and valid_from every source of the prior fit, which has seen nothing after
rank_from, brings what it would bring. For each window of `blend.windows` quotas are learned by greedy recall
of the candidates; the window with the best recall is taken, the longest where it makes no difference.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from feature_repo.assemble.visitor import history
from feature_repo.clock import DAY_US
from feature_repo.errors import ParamsError
from feature_repo.files import write_json
from feature_repo.params import load, shop
from feature_repo.places import BLEND, BLEND_PICTURE, at
from pipelines.blend.charts import draw_blend
from pipelines.blend.quotas import LAST, Asked, Brought, filled, learned
from pipelines.protocol.known import Known, answers, query_points
from pipelines.protocol.metrics import bootstrap_interval
from pipelines.protocol.models import load_models
from pipelines.protocol.queries import Query, QueryParams
from serving.stages.eligibility import eligibility
from serving.stages.fitted import Models
from serving.stages.retrieve import Retrieve, Sources


@dataclass(frozen=True)
class BlendParams:
    """Section `blend` of params.yaml."""

    queries: int  # asked at most
    min_queries: int  # fewer teach nothing: the quotas of section `retrieve` stay
    block: int  # places that are given at a time
    floors: dict[str, int]  # source -> places that it has in any case
    windows: tuple[float, ...]  # days, from which bought_days is chosen
    least_share: float  # of all hits, below which a source is left out


def main() -> None:
    """Learn the quotas of the sources and the window of `just bought` from the shop's own queries."""
    active, params, queried = shop(), load("blend", BlendParams), load("queries", QueryParams)
    shipped = load("retrieve", Retrieve)
    if unknown := sorted(params.floors.keys() - shipped.quotas.keys()):
        allowed = ", ".join(shipped.quotas)
        raise ParamsError(f"blend.floors: {unknown[0]!r} is no source of retrieve.quotas; allowed: {allowed}")
    rng = np.random.default_rng(queried.seed)
    queries = query_points(active.rank_from, active.valid_from, params.queries, rng)
    report: dict[str, Any] = {"shop": active.name, "queries": len(queries), "k": shipped.k}
    if len(queries) < params.min_queries:
        told = f"{len(queries)} queries between rank_from and valid_from are too few to learn from"
        report |= {"quotas": shipped.quotas, "bought_days": shipped.bought_days, "learned": False}
        report |= {"told": f"{told} ({params.min_queries}): the quotas of params.yaml stay"}
    else:
        asked = ask(queries, load_models("prior"), shipped, queried.processes)
        report |= learn(asked, [query.session_id for query in queries], shipped, params, queried.seed)
    write_json(at(BLEND), report)
    draw_blend(report, at(BLEND_PICTURE))
    print(f"{BLEND}: {report['told']}")
    for name in report.get("left_out", []):
        print(f"{BLEND}: {name} adds nothing to the candidates and is left out")


def ask(queries: Sequence[Query], models: Models, shipped: Retrieve, processes: int) -> list[Asked]:
    """What every source of `shipped.quotas` brings for each query when no earlier purchase is barred."""
    row = {item: i for i, item in enumerate(models.ids)}

    def answer(known: Known) -> Asked:
        query, request, visitor, matrix = known
        user = visitor.user
        bought = {
            row[item]: (visitor.now - ts) / DAY_US
            for item, ts in zip(user["bought_items"], user["bought_ts"], strict=True)
            if item in row
        }
        past, may = history(visitor, matrix), eligibility(request, visitor, matrix, 0.0).may
        more = replace(shipped, k=shipped.k + len(bought))  # so many may be barred by a window
        sources = Sources(more, models, visitor, past, matrix, may)
        wanted = frozenset(row[item] for item in query.relevant if item in row)
        return Asked(
            {name: sources.best(name) for name in shipped.quotas}, wanted, len(query.relevant), bought
        )

    return list(answers(queries, models.ids, shipped.k, "blend", answer, processes))


def learn(
    asked: Sequence[Asked], sessions: Sequence[str], shipped: Retrieve, params: BlendParams, seed: int
) -> dict[str, Any]:
    """The report without the shop: quotas, window, recall before and after, shares of every source.

    Quotas that reach less than the shipped ones on the same queries are not taken.
    """
    brought, k, rng = Brought.of(asked, shipped.quotas), shipped.k, np.random.default_rng(seed)
    barred = {window: brought.barred(window) for window in (*params.windows, shipped.bought_days)}
    before = filled(brought, shipped.quotas, k, barred[shipped.bought_days]).recall
    found = {}
    for window in params.windows:
        mine = learned(brought, k, params.block, params.floors, params.least_share, barred[window])
        either = [(quotas, filled(brought, quotas, k, barred[window])) for quotas in (mine, shipped.quotas)]
        found[window] = max(either, key=lambda entry: entry[1].recall.mean())
    best = max(found, key=lambda window: (found[window][1].recall.mean(), window))
    windows, within = [], [best]
    for window, (_, fill) in found.items():
        less = fill.recall - found[best][1].recall
        low, high = bootstrap_interval(less, rng, clusters=np.array(sessions))
        windows.append({"days": window, "recall": float(fill.recall.mean()), "less": [low, high]})
        if high >= 0:
            within.append(window)
    days = max(within)
    quotas, after = found[days]
    total, hits = sum(after.candidates.values()), max(1, sum(after.hits.values()))
    sources = {
        name: {
            "quota": quotas.get(name, 0),
            "candidates": after.candidates.get(name, 0) / total if total else 0.0,
            "hits": after.hits.get(name, 0) / hits,
            "alone": float(filled(brought, {name: k}, k, barred[days]).recall.mean()),
        }
        for name in dict.fromkeys((*quotas, *shipped.quotas))
    }
    recall = {"before": float(before.mean()), "after": float(after.recall.mean())}
    told = ", ".join(f"{name} {quota}" for name, quota in quotas.items())
    told += f"; what was bought within {days:g} days is not shown again; recall@{k} {recall['after']:.3f}, "
    told += f"{recall['before']:.3f} as shipped"
    return {
        "quotas": quotas,
        "bought_days": days,
        "learned": True,
        "told": told,
        "recall": recall,
        "windows": windows,
        "sources": sources,
        "left_out": [name for name in shipped.quotas if name not in quotas and name != LAST],
        "params": asdict(params),
    }
