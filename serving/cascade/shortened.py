"""Lists without a ranker, of rows that are in order already; rules and eligibility hold as for every list."""

from collections.abc import Sequence

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor, history
from serving.pipeline import Bundle
from serving.stages.bestsellers import WEIGHED
from serving.stages.eligibility import eligibility
from serving.stages.retrieve import Sources, foremost
from serving.stages.shelf import AS_RANKED, shelved
from serving.stages.steering import Steering, weighed
from serving.types import Ranked, Request, Rows, Slot


def by_vector(
    request: Request, bundle: Bundle, visitor: Visitor, matrix: ItemMatrix, steering: Steering
) -> tuple[Slot, ...]:
    """What is nearest to the shopper's vector of this moment, the tower's own order."""
    may = eligibility(request, visitor, matrix, bundle.retrieve.bought_days, steering).may
    past = history(visitor, matrix)
    near = Sources(bundle.retrieve, bundle.models, visitor, past, matrix, may).best("tower")
    return in_order(np.array(near, np.int64), "tower", request, bundle, visitor, matrix, steering)


def of_rail(
    items: Sequence[str],
    source: str,
    request: Request,
    bundle: Bundle,
    visitor: Visitor,
    matrix: ItemMatrix,
    steering: Steering,
) -> tuple[Slot, ...]:
    """A list that was made beforehand, less what must not be shown by now, filled up with bestsellers."""
    return in_order(matrix.rows_of(items), source, request, bundle, visitor, matrix, steering)


def in_order(
    rows: Rows,
    source: str,
    request: Request,
    bundle: Bundle,
    visitor: Visitor,
    matrix: ItemMatrix,
    steering: Steering,
) -> tuple[Slot, ...]:
    """`request.limit` slots of the eligible ones among `rows` (n,), best first, then of the most viewed."""
    may = eligibility(request, visitor, matrix, bundle.retrieve.bought_days, steering).may
    pins = steering.pinned(may, request.limit)
    found = dict.fromkeys(rows[may.of(rows)].tolist(), source)
    if len(found) < request.limit:
        most = WEIGHED if steering.rules else request.limit + len(found)
        for row in foremost(matrix.bestselling(), matrix.popularity(), may, max(most, request.limit)):
            found.setdefault(row, "popular")
    for pin in pins:
        found.setdefault(pin.row, "popular")
    order = np.fromiter(found, np.int64, len(found))
    place = np.linspace(1, 0, len(order), endpoint=False, dtype=np.float32)
    ranked = Ranked(order, place, tuple(found.values()), np.zeros((len(order), 0), np.float32))
    ranked = weighed(ranked, steering.factor)
    return shelved(AS_RANKED, ranked, matrix, request.limit, None, (may,), steering, pins).slots
