"""Lists without a ranker, of rows that are in order already; rules and eligibility hold as for every list."""

from collections.abc import Sequence

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor, history
from serving.pipeline import Bundle
from serving.stages.bestsellers import WEIGHED
from serving.stages.eligibility import eligibility
from serving.stages.fitted import user_vector
from serving.stages.index import top
from serving.stages.retrieve import EVERY, OVERFETCH
from serving.stages.shelf import AS_RANKED, shelved
from serving.stages.steering import Steering, weighed
from serving.types import Ranked, Request, Rows, Slot


def by_vector(
    request: Request, bundle: Bundle, visitor: Visitor, matrix: ItemMatrix, steering: Steering
) -> tuple[Slot, ...]:
    """What is nearest to the shopper's vector of this moment, the tower's own order."""
    past = history(visitor, matrix)
    user = user_vector(bundle.models, visitor, past, matrix.newborns)
    rows, near = bundle.models.index.search(user, OVERFETCH * bundle.retrieve.k)
    if matrix.own < len(matrix):
        rows = np.concatenate([rows, np.arange(matrix.own, len(matrix))])
        near = np.concatenate([near, matrix.newborns.units @ user])
        rows = rows[np.argsort(-near, kind="stable")]
    return in_order(rows, "tower", request, bundle, visitor, matrix, steering)


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
    eligible = eligibility(request, visitor, matrix, bundle.retrieve.bought_days, steering.allowed).mask
    pins = steering.pinned(eligible, request.limit)
    found = dict.fromkeys(rows[eligible[rows]].tolist(), source)
    if len(found) < request.limit:
        most = WEIGHED if steering.rules else request.limit + len(found)
        for row in top(matrix.popularity() + EVERY, eligible, max(most, request.limit)):
            found.setdefault(row, "popular")
    for pin in pins:
        found.setdefault(pin.row, "popular")
    order = np.fromiter(found, np.int64, len(found))
    place = np.linspace(1, 0, len(order), endpoint=False, dtype=np.float32)
    ranked = Ranked(order, place, tuple(found.values()), np.zeros((len(order), 0), np.float32))
    ranked = weighed(ranked, steering.factor)
    return shelved(AS_RANKED, ranked, matrix, request.limit, None, (eligible,), steering, pins)[0]
