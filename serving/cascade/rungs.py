"""From the rung that a request may have down to the first that has a list for it.

    live            the release, with the stored rows
    vector          what is nearest to the shopper's vector, without the ranker
    shopper_rail    made beforehand for the shopper, else for the visit
    cohort_rail     for device and country
    category_rail   for the category of the page, or of its product
    fallback        bestsellers; where even these fail the release's own rail of them

A rung that has nothing for this request, or that fails, is passed over. The holdout's list is bestsellers on
every rung (`precomputed`); what is to be re-ordered is re-ordered, or left as it came.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor
from serving import pipeline
from serving.cascade.board import Board
from serving.cascade.queueing import Rung
from serving.cascade.shortened import by_vector, of_rail
from serving.pipeline import Bundle, Served
from serving.rails.rail import Rail
from serving.rails.shared import SharedRails
from serving.stages import bestsellers
from serving.stages.steering import Steering
from serving.tracing import Trace
from serving.types import Request, Slot

LIVE, VECTOR, SHOPPER_RAIL = "live", "vector", "shopper_rail"
PRECOMPUTED, FALLBACK = "precomputed", "fallback"


class Task(NamedTuple):
    """What a route asks for: the stages with models, the list without, whether `limit` slots are promised."""

    stages: Callable[..., Served]  # (Request, Bundle, Visitor, ItemMatrix, Steering) and, perhaps, a Trace
    without_models: Callable[[Request, Visitor, ItemMatrix, Steering], tuple[Slot, ...]]
    fills: bool


RECOMMEND = Task(pipeline.recommend, bestsellers.bestsellers, fills=True)
RANK = Task(pipeline.reorder, bestsellers.listed, fills=False)  # orders what it knows of the given items


class Filled(NamedTuple):
    """A list, the rung that made it, how it came about, and its JSON where that is at hand."""

    slots: tuple[Slot, ...]
    served_from: str
    served: Served | None = None
    json: bytes = b""


@dataclass(frozen=True)
class Rungs:
    """The ladder of one worker; `complain` is told of every rung that fails."""

    complain: Callable[[str, Exception], None]
    shared: SharedRails | None = None

    def fill(
        self,
        rung: Rung,
        holdout: bool,
        rail: Rail | None,
        board: Board,
        task: Task,
        request: Request,
        bundle: Bundle,
        visitor: Visitor,
        matrix: ItemMatrix,
        steering: Steering,
        trace: Trace | None = None,
    ) -> Filled:
        """The list of `rung`, else of the next below that has one; `trace` as pipeline.recommend takes it."""
        exploring, steering = steering, replace(steering, offer=None) if steering.offer else steering
        asked = request, bundle, visitor, matrix, steering

        def bestselling(told: str) -> Filled:
            known = board.of(request, matrix, steering, visitor.now) if unknown and task.fills else None
            if known is not None:
                return Filled(known.slots, told, json=known.json)
            return Filled(task.without_models(request, visitor, matrix, steering), told)

        def live() -> Filled:
            served = task.stages(*asked[:4], exploring, *(() if trace is None else (trace,)))
            return Filled(served.slots, LIVE, served)

        def rungs() -> Iterator[tuple[str, Callable[[], Filled]]]:
            if holdout:
                yield PRECOMPUTED, lambda: bestselling(PRECOMPUTED)
            elif rung is Rung.LIVE:
                yield "pipeline", live
            if task.fills and not holdout:
                if rung <= Rung.VECTOR:
                    yield VECTOR, lambda: Filled(by_vector(*asked), VECTOR)
                if rail is not None and (own := rail.lists.get(request.surface)):
                    yield SHOPPER_RAIL, lambda: Filled(of_rail(own, SHOPPER_RAIL, *asked), SHOPPER_RAIL)
                if rung <= Rung.SHARED and self.shared is not None:
                    for name, items in self.shared.of(request, matrix, bundle.digest, visitor.now):
                        yield name, lambda name=name, items=items: Filled(of_rail(items, name, *asked), name)  # type: ignore[misc]
            yield "bestsellers", lambda: bestselling(FALLBACK)

        unknown = rung is Rung.BESTSELLERS  # no stored row was read, so that the list is anybody's
        for name, make in rungs():
            try:
                return make()
            except Exception as error:
                self.complain(name, error)
        popular = bundle.rails["popular"]
        return Filled(bestsellers.rail(popular, request, visitor, matrix, steering), FALLBACK)
