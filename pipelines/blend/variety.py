"""What each knob of `diversify` buys and costs: the same rankings, laid out anew by every setting of it.

One knob moves at a time, the other stays where params.yaml has it. NDCG@12 is the price; coverage, Gini of
exposure and distance within the list are what it buys. Asked on the validation span, where knobs are set.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.matrix import ItemMatrix
from pipelines.protocol.metrics import coverage, exposures, gini, ndcg_at
from serving.stages.diversify import Diversify, diversify
from serving.types import Ranked

Rows = npt.NDArray[np.int64]


class Setting(NamedTuple):
    """One knob of `diversify` at one value; `params` holds the rest as it serves."""

    knob: str
    value: float
    params: Diversify


class Laid(NamedTuple):
    """A list, rows (k,) with -1 for an empty place, and the mean distance of two of its items, 0..1."""

    rows: Rows
    distance: float


def settings(params: Diversify, **values: Sequence[float]) -> list[Setting]:
    """Knob by knob each of `values`, the one that serves among them, in ascending order."""
    return [
        Setting(knob, value, replace(params, **{knob: value}))
        for knob, tried in values.items()
        for value in sorted({*tried, asdict(params)[knob]})
    ]


def laid(
    tried: Iterable[Setting], ranked: Ranked, matrix: ItemMatrix, k: int, drawn: float | None
) -> list[Laid]:
    """The list of each setting."""
    found = []
    for _, _, params in tried:
        rows = ranked.rows[diversify(params, ranked, matrix, k, drawn).places]
        padded = np.pad(rows, (0, k - len(rows)), constant_values=-1)
        found.append(Laid(padded, _distance(rows, matrix, params.category_weight)))
    return found


def priced(
    tried: Sequence[Setting],
    answered: Sequence[Sequence[Laid]],
    wanted: Sequence[frozenset[int]],
    many: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
) -> list[dict[str, Any]]:
    """A row per setting: knob, value, ndcg_at_12, coverage_at_12, gini and distance.

    `answered` holds the lists of each query, `wanted` and `many` (q,) what was relevant in it, `known` (N,)
    the items that can be covered.
    """
    table = []
    for at, setting in enumerate(tried):
        rows = np.array([lists[at].rows for lists in answered])  # (q, k)
        hits = np.array(
            [[row in good for row in one.tolist()] for one, good in zip(rows, wanted, strict=True)]
        )
        counted = np.where((rows >= 0) & known[rows], rows, -1)
        table.append(
            {
                "knob": setting.knob,
                "value": setting.value,
                "ndcg_at_12": float(ndcg_at(hits, many, rows.shape[1]).mean()),
                "coverage_at_12": coverage(counted, int(known.sum())),
                "gini": gini(exposures(rows, len(known))[known]),
                "distance": float(np.mean([lists[at].distance for lists in answered])),
            }
        )
    return table


def _distance(rows: Rows, matrix: ItemMatrix, category_weight: float) -> float:
    """1 less the similarity of `diversify`, over all pairs of `rows`; 0 for fewer than two."""
    if len(rows) < 2:
        return 0.0
    category, band = matrix.category[rows], matrix.price_band[rows]
    same_category = (category[:, None] == category) & (category > 0)
    same_band = (band[:, None] == band) & (band > 0)
    alike = category_weight * same_category + (1 - category_weight) * same_band
    pairs = len(rows) * (len(rows) - 1)
    return float(1 - (alike.sum() - alike.trace()) / pairs)
