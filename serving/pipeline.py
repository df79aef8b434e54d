"""The product on one screen: features -> retrieve -> rank -> diversify -> rules -> slots.

A surface with a craft of its own (serving/surfaces) brings other candidates and lays them out by its filters.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor, history
from feature_repo.folds.owner import visible
from serving.explore.chance import draw
from serving.stages.diversify import Diversify
from serving.stages.eligibility import Eligibility, eligibility, on_sale
from serving.stages.fitted import Models, user_vector
from serving.stages.odds import BY_RELEVANCE, UNWEIGHTED, Clicks, Profit
from serving.stages.rank import Ranker, Untrained, rank
from serving.stages.retrieve import Retrieve, Scored, Sources, retrieve
from serving.stages.shelf import AS_RANKED, every_one, shelved
from serving.stages.steering import UNSTEERED, Pin, Steering, weighed
from serving.surfaces.anchored import asked
from serving.surfaces.arrangement import arranged, gather
from serving.surfaces.craft import Surfaces
from serving.tracing import Trace
from serving.types import Candidates, Filter, Ranked, Request, Slot


@dataclass(frozen=True)
class Bundle:
    """A release in memory: models, ranker and settings that move together or not at all.

    A candidate that no bundle was written of yet has no manifest and no rails.
    """

    models: Models
    ranker: Ranker
    retrieve: Retrieve
    diversify: Diversify
    surfaces: Surfaces
    clicks: Clicks = UNWEIGHTED
    profit: Profit = BY_RELEVANCE
    manifest: Mapping[str, Any] = field(default_factory=dict)
    rails: Mapping[str, list[str]] = field(default_factory=dict)  # "popular": item ids, best first

    @property
    def digest(self) -> str:
        """16 hex digits, the name of the release; serving.release.bundle says of what."""
        digest: str = self.manifest["digest"]
        return digest


@dataclass(frozen=True, slots=True)
class Served:
    """The slots, how they came about, and the seconds that each stage took.

    `propensity`, `explored`: as serving.stages.shelf.Laid has them. `pins`: the rules' that it shows.
    """

    slots: tuple[Slot, ...]
    candidates: Candidates
    ranked: Ranked
    eligible: Eligibility
    seconds: Mapping[str, float]
    propensity: float = 1.0
    pins: tuple[Pin, ...] = ()
    explored: bool | None = None


class Laps(dict[str, float]):
    """Stage -> seconds, one `lap` at the end of each."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def lap(self, stage: str) -> None:
        ended = time.perf_counter()
        self[stage], self._began = ended - self._began, ended


def visitor_of(
    request: Request, now: int, user: Mapping[str, Any] | None, session: Mapping[str, Any] | None
) -> Visitor:
    """The request joined with the stored rows that were read for it."""
    context = request.context
    return Visitor(
        now=now,
        surface=request.surface,
        session_id=request.session_id,
        device=context.device,
        channel=context.channel,
        country=context.country,
        user=user,  # type: ignore[arg-type]
        session=visible(session, request.user_id),  # type: ignore[arg-type]
        anchors=(*request.cart, *request.items),
    )


def recommend(
    request: Request,
    bundle: Bundle,
    visitor: Visitor,
    matrix: ItemMatrix,
    steering: Steering = UNSTEERED,
    trace: Trace | None = None,
) -> Served:
    """Fill `request.limit` slots; fewer only where the catalogue has no more that may be shown.

    `trace` is told how each stage came to its part; the list is the same without.
    """
    took = Laps()
    past = history(visitor, matrix)
    eligible = eligibility(request, visitor, matrix, bundle.retrieve.bought_days, steering)
    pins = steering.pinned(eligible.may, request.limit)
    took.lap("filter")
    params, models, clicks = bundle.retrieve, bundle.models, bundle.clicks
    pinned = [pin.row for pin in pins]
    craft = bundle.surfaces.of(request.surface)
    question = asked(craft, request, visitor, past, models, matrix, eligible.may)
    if question:
        shopper = Sources(params, models, visitor, past, matrix, question.allowed[0])
        candidates = gather(question, shopper, params.k, request.limit, pinned, trace)
        if trace is not None:
            trace.filters = question.bars
    else:
        if (quotas := clicks.quotas(past, params.quotas)) is not params.quotas:
            params = replace(params, quotas=quotas)
        candidates = retrieve(params, models, visitor, past, matrix, eligible.may, pinned, trace)
    took.lap("retrieve")
    own = question is not None and question.craft.order == "own"
    ranker, weights = (Untrained(), UNWEIGHTED) if own else (bundle.ranker, clicks)
    ranked = rank(ranker, candidates, visitor, past, matrix, weights, models.attraction, trace)
    took.lap("rank")
    ranked = weighed(ranked if own else bundle.profit.weigh(ranked, matrix, request.surface), steering.factor)
    diversity, drawn = bundle.diversify, draw(request, visitor)
    standing: tuple[Filter, ...] = (eligible.may,)
    if question:  # its filters are its diversity, and a draw would break them
        ranked, diversity, drawn = arranged(question, ranked), AS_RANKED, None
        standing = question.allowed
    laid = shelved(diversity, ranked, matrix, request.limit, drawn, standing, steering, pins, trace)
    took.lap("diversify")
    return Served(laid.slots, candidates, ranked, eligible, took, laid.propensity, tuple(pins), laid.explored)


def reorder(
    request: Request, bundle: Bundle, visitor: Visitor, matrix: ItemMatrix, steering: Steering = UNSTEERED
) -> Served:
    """Order the items that the storefront lists (category pages): all that are on sale, without diversity.

    What the rules do not allow comes last; a pinned product moves to its slot if it is listed.
    """
    took = Laps()
    may = Filter(partial(on_sale, matrix, visitor.now))
    rows = matrix.rows_of(list(dict.fromkeys(request.items)))
    rows = rows[may.of(rows)]
    took.lap("filter")
    past = history(visitor, matrix)
    user = user_vector(bundle.models, visitor, past, matrix.newborns)
    scores = Scored(bundle.retrieve, bundle.models, user, past, matrix.newborns).of(rows)
    candidates = Candidates(rows, ("listed",) * len(rows), scores)
    took.lap("retrieve")
    weights = bundle.clicks, bundle.models.attraction
    ranked = rank(bundle.ranker, candidates, visitor, past, matrix, *weights)
    ranked = weighed(bundle.profit.weigh(ranked, matrix, request.surface), steering.factor)
    took.lap("rank")
    slots, pins = every_one(ranked, matrix, steering)
    return Served(slots, candidates, ranked, Eligibility(may, {}, len(matrix)), took, pins=pins)
