"""Lists without a model: for the holdout, and where the models fail. The rules hold for them as for all."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor
from serving.stages.eligibility import eligibility, on_sale
from serving.stages.retrieve import foremost
from serving.stages.shelf import AS_RANKED, every_one, shelved, slots_of
from serving.stages.steering import UNSTEERED, Steering, weighed
from serving.types import Floats, Ranked, Request, Rows, Slot

WEIGHED = 120  # of the most viewed, among which the rules' factors may change the order


def bestsellers(
    request: Request, visitor: Visitor, matrix: ItemMatrix, steering: Steering = UNSTEERED
) -> tuple[Slot, ...]:
    """No model: the most viewed eligible items, for the holdout arm and as the first fallback.

    The rules hold as for every list, on views as relevance.
    """
    may, popular = eligibility(request, visitor, matrix, steering=steering).may, matrix.popularity()
    if steering.asks_nothing:
        found = foremost(matrix.bestselling(), popular, may, request.limit)
        return slots_of([(row, popular[row], "popular") for row in found], matrix)
    pins = steering.pinned(may, request.limit)
    first = foremost(matrix.bestselling(), popular, may, max(WEIGHED, request.limit))
    rows = np.array(list(dict.fromkeys([*first, *(pin.row for pin in pins)])), np.int64)
    ranked = Ranked(rows, popular[rows].astype(np.float32), ("popular",) * len(rows), _no_values(rows))
    ranked = weighed(ranked, steering.factor)
    return shelved(AS_RANKED, ranked, matrix, request.limit, None, (may,), steering, pins)[0]


def listed(
    request: Request, visitor: Visitor, matrix: ItemMatrix, steering: Steering = UNSTEERED
) -> tuple[Slot, ...]:
    """No model: the items of the request that are on sale, in the storefront's own order.

    The rules hold as in `reorder`, on the place in that order as relevance.
    """
    rows = matrix.rows_of(list(dict.fromkeys(request.items)))
    rows = rows[on_sale(matrix, visitor.now, rows)]
    place = np.arange(len(rows), 0, -1, dtype=np.float32)
    ranked = weighed(Ranked(rows, place, ("listed",) * len(rows), _no_values(rows)), steering.factor)
    slots, __ = every_one(ranked, matrix, steering)
    return tuple(replace(slot, score=0.0) for slot in slots)


def rail(
    popular: Sequence[str],
    request: Request,
    visitor: Visitor,
    matrix: ItemMatrix,
    steering: Steering = UNSTEERED,
) -> tuple[Slot, ...]:
    """The last rung: `popular` items on sale, less what the request itself names or a rule bars."""
    rows = matrix.rows_of(popular)
    rows = rows[on_sale(matrix, visitor.now, rows)]
    if steering.allowed is not None:
        rows = rows[steering.allowed[rows]]
    barred, sold = (
        {*request.items, *request.cart, *request.exclude},
        (matrix.ids[row] for row in rows.tolist()),
    )
    chosen = [item for item in sold if item not in barred][: request.limit]
    return tuple(Slot(item, slot, 0.0, "popular") for slot, item in enumerate(chosen))


def _no_values(rows: Rows) -> Floats:
    return np.zeros((len(rows), 0), np.float32)
