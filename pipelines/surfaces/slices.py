"""What each surface is worth: its own questions and truth, beside its own baseline under the same filters.

A baseline is the surface with its one source in the place of all, and no trees: what the shop could show
instead. The filters cost hits that no list under them could have (who looks at one shirt often takes
another); `unfiltered` tells how many, of ours and of the baseline.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from feature_repo.params import load, shop
from pipelines.gates.scores import Part
from pipelines.protocol.known import Known, answers
from pipelines.protocol.metrics import bootstrap_interval
from pipelines.protocol.occasions import occasions
from pipelines.protocol.queries import Query, QueryParams
from serving.pipeline import Bundle, recommend
from serving.surfaces.craft import Craft, Surfaces
from training.dataset import read_catalogue

K = 12


class Variant(NamedTuple):
    """A surface under another craft."""

    name: str  # ours, baseline, and each unfiltered
    craft: Craft


def slices(
    candidate: Bundle, events: pd.DataFrame, parts: MutableMapping[str, Part]
) -> dict[str, dict[str, Any]]:
    """Surface -> its figures on the test span, as the evaluation report holds them; {} where nobody asked.

    Each surface's hits, question by question, go into `parts`.

    hit_rate_at_12  share of the questions with a wanted item in the list
    over            the interval of ours less the baseline's, visits resampled: [low, high]
    """
    active, params = shop(), load("queries", QueryParams)
    catalogue = read_catalogue().table
    kinds = dict(zip(catalogue["item_id"].to_pylist(), catalogue["category_path"].to_pylist(), strict=True))
    found = {}
    for field in fields(Surfaces):
        craft = candidate.surfaces.of(field.name)
        if craft is None:
            continue
        rng = np.random.default_rng(params.seed)
        span = active.test_from, None
        asked = occasions(events, field.name, craft.truth, kinds, *span, params.surfaces, rng)
        if asked:
            hits = _hits(candidate, field.name, craft, asked, params.processes)
            visits = np.array([query.session_id for query in asked])
            found[field.name] = _figures(craft, hits, visits)
            parts[field.name] = Part.of(asked, craft.baseline, hits["ours"], hits["baseline"])
    return found


def variants(craft: Craft) -> Iterator[Variant]:
    """The surface and its baseline, as it is and without filters."""
    alone = replace(craft, quotas={craft.baseline: sum(craft.quotas.values())}, order="own")
    for name, one in (("ours", craft), ("baseline", alone)):
        yield Variant(name, one)
        free = replace(one, kind="any", per_kind=0, price=(0.0, np.inf), relax=("price",))
        yield Variant(f"{name} unfiltered", free)


def _hits(
    candidate: Bundle, surface: str, craft: Craft, asked: list[Query], processes: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Variant -> 1 for a question with a wanted item in the list, else 0."""
    tried = [
        (name, replace(candidate, surfaces=replace(candidate.surfaces, **{surface: one})))
        for name, one in variants(craft)
    ]

    def answer(known: Known) -> dict[str, bool]:
        wanted = known.query.relevant
        served = ((name, recommend(known.request, one, known.visitor, known.matrix)) for name, one in tried)
        return {name: any(slot.item_id in wanted for slot in found.slots) for name, found in served}

    told = list(answers(asked, candidate.models.ids, K, surface, answer, processes))
    return {name: np.array([one[name] for one in told], np.float64) for name, _ in tried}


def _figures(craft: Craft, hits: Mapping[str, npt.NDArray[np.float64]], visits: Any) -> dict[str, Any]:
    def interval(values: npt.NDArray[np.float64]) -> list[float]:
        return list(bootstrap_interval(values, np.random.default_rng(0), clusters=visits))

    low, high = interval(hits["ours"])
    return {
        "queries": len(visits),
        "visits": len(np.unique(visits)),
        "truth": craft.truth,
        "order": craft.order,
        "hit_rate_at_12": float(hits["ours"].mean()),
        "hit_low": low,
        "hit_high": high,
        "baseline": craft.baseline,
        "baseline_hit_rate_at_12": float(hits["baseline"].mean()),
        "over": interval(hits["ours"] - hits["baseline"]),
        "unfiltered": {name: float(hits[f"{name} unfiltered"].mean()) for name in ("ours", "baseline")},
    }
