"""A candidate's score as a sum: what each column adds, what attraction adds, and what a score begins with."""

from collections.abc import Sequence
from typing import Any

from feature_repo.assemble.vectorize import COLUMNS
from serving.tracing import Judged

Terms = list[dict[str, Any]]
PLACE, ATTRACTION, BASE = "place", "attraction", "base"


def contributions(judged: Judged, places: Sequence[int]) -> list[Terms]:
    """Of the candidates at `places` of the order of retrieval: terms {name, value, adds}, the largest first.

    The `adds` of a candidate add up to its score, which is the ranker's times its weight and the item's
    attraction times its own. `value` is the column's, None for unknown. `base` is what a score begins with;
    where no trees decide, `place` is the place that retrieval gave.
    """
    weight, pull_weight = judged.weights
    parts = judged.ranker.contributions(judged.values[list(places)]) if places else None
    found: list[Terms] = []
    for nth, at in enumerate(places):
        if parts is None:
            terms = [_term(PLACE, at + 1, weight * float(judged.raw[at]))]
        else:
            added = (weight * parts[nth]).tolist()
            values = judged.values[at].tolist()
            terms = [_term(*one) for one in zip(COLUMNS, values, added[:-1], strict=True)]
            terms.append(_term(BASE, None, added[-1]))
        if pull_weight:
            pull = float(judged.pull[at])
            terms.append(_term(ATTRACTION, pull, pull_weight * pull))
        found.append(sorted(terms, key=lambda term: -abs(term["adds"])))
    return found


def _term(name: str, value: float | None, adds: float) -> dict[str, Any]:
    return {"name": name, "value": None if value != value else value, "adds": adds}
