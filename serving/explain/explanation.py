"""The answer of POST /v1/explain: the list, and of each product in it or asked for what moved it."""

from collections.abc import Sequence
from typing import Any

from feature_repo.assemble.vectorize import COLUMNS
from serving.explain.absence import fall, rank_in
from serving.explain.contributions import Terms, contributions
from serving.live.products import products
from serving.live.seen import Recorded
from serving.tracing import Brought, Choice, Judged
from serving.types import Slot


def explained(told: Recorded, asked: Sequence[str]) -> dict[str, Any]:
    """As JSON. `items`: the slots; `asked`: the same of the products asked for, with where they fell.

    Takes tenths of a second the first time, tens of milliseconds after: for a thread.
    """
    subjects = [slot.item_id for slot in told.slots] + list(asked)
    details = _details(told, subjects)
    heads: list[dict[str, Any]] = [
        {"item_id": s.item_id, "slot": s.slot, "score": s.score, "source": s.source}
        | ({"rule": s.rule} if s.rule else {})
        for s in told.slots
    ]
    heads += [{"item_id": item} | fall(told, item)._asdict() for item in asked]
    every = [head | more for head, more in zip(heads, details, strict=True)]
    seen, judged = told.seen, told.trace.judged
    return {
        "surface": told.request.surface,
        "arm": seen.arm,
        "bundle": seen.bundle.digest,
        "served_from": told.served_from,
        "degraded": told.degraded,
        "now": seen.now,
        "phase": judged.phase if judged else None,
        "candidates": len(judged.rows) if judged else 0,
        "sources": [_source(told, one) for one in told.trace.brought],
        "rules": {"version": told.steering.version, "held": list(told.steering.rules)},
        "warnings": list(told.warnings),
        "items": every[: len(told.slots)],
        "asked": every[len(told.slots) :],
    }


def _source(told: Recorded, one: Brought) -> dict[str, Any]:
    """A source that was asked, in the order of asking; what it `brought` no earlier one had."""
    brought = told.served.candidates.source.count(one.source) if told.served else 0
    return {"source": one.source, "quota": one.quota, "found": len(one.rows), "brought": brought}


def _details(told: Recorded, items: Sequence[str]) -> list[dict[str, Any]]:
    """Of each product what the path knows of it; null where it did not come so far."""
    matrix, judged = told.seen.matrix, told.trace.judged
    at = {row: place for place, row in enumerate(judged.rows.tolist())} if judged else {}
    ranked = {row: n for n, row in enumerate(told.served.ranked.rows.tolist(), 1)} if told.served else {}
    rows = [matrix.row.get(item) for item in items]
    places = list(dict.fromkeys(at[row] for row in rows if row in at))
    terms = dict(zip(places, contributions(judged, places), strict=True)) if judged else {}
    titles = products([Slot(item, 0, 0.0, "") for item in items], told.request.fields, matrix)
    found = []
    for row, title in zip(rows, titles, strict=True):
        place = None if row is None else at.get(row)
        more: dict[str, Any] = {"sources": [] if row is None else _ranks(told, row, deep=place is None)}
        more |= {"retrieved": None if place is None else place + 1}
        more |= {"ranked": None if row is None else ranked.get(row)}
        more |= {"popularity": None if row is None else float(matrix.popularity()[row])}
        more |= _judged(judged, place, terms) | {
            "diversity": _diversity(told, -1 if row is None else ranked.get(row, 0) - 1)
        }
        more["rules"] = [] if row is None else [one._asdict() for one in told.rules(row)]
        found.append(title | more)
    return found


def _ranks(told: Recorded, row: int, deep: bool) -> list[dict[str, Any]]:
    """The sources that have it, with the rank in each, from 1; those that were not asked are not here."""
    ranks = ((one.source, rank_in(one, row, deep)) for one in told.trace.brought)
    return [{"source": source, "rank": rank} for source, rank in dict(ranks).items() if rank is not None]


def _judged(judged: Judged | None, place: int | None, terms: dict[int, Terms]) -> dict[str, Any]:
    if judged is None or place is None:
        return {"odds": None, "values": None, "contributions": None}
    weight, pull_weight = judged.weights
    raw, pull = float(judged.raw[place]), float(judged.pull[place])
    odds = {"score": weight * raw + pull_weight * pull}
    odds |= {"ranker": raw, "ranker_weight": weight, "attraction": pull, "attraction_weight": pull_weight}
    values = dict(zip(COLUMNS, judged.values[place].tolist(), strict=True))
    return {"odds": odds, "values": values, "contributions": terms[place]}


def _diversity(told: Recorded, place: int) -> dict[str, Any] | None:
    """Relevance, likeness to what was chosen before, and their balance: at its choice, else at the last."""
    choices, relevance = told.trace.choices, told.trace.relevance
    if not choices or relevance is None or place < 0:
        return None
    chosen: Choice = next((one for one in choices if one.place == place), choices[-1])
    told_of = {"relevance": relevance[place], "closeness": chosen.closeness[place]}
    return {name: float(one) for name, one in (told_of | {"worth": chosen.worth[place]}).items()}
