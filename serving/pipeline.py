"""The product on one screen: features -> retrieve -> rank -> diversify -> rules -> slots.

A surface with a craft of its own (serving/surfaces) brings other candidates and lays them out by its filters.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor, history
from feature_repo.folds.owner import visible
from serving.stages.diversify import TAIL, Diversify, Shelf, diversify, draw
from serving.stages.rank import Ranker, Untrained, rank
from serving.stages.retrieve import EVERY, Models, Retrieve, Scored, Sources, retrieve, top, user_vector
from serving.stages.rules import Eligibility, eligibility
from serving.surfaces.anchored import asked
from serving.surfaces.craft import Surfaces
from serving.surfaces.shelf import gather, lay
from serving.types import Candidates, Ranked, Request, Slot


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

    `propensity`: as serving.stages.diversify.Shelf has it.
    """

    slots: tuple[Slot, ...]
    candidates: Candidates
    ranked: Ranked
    eligible: Eligibility
    seconds: Mapping[str, float]
    propensity: float = 1.0


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


def recommend(request: Request, bundle: Bundle, visitor: Visitor, matrix: ItemMatrix) -> Served:
    """Fill `request.limit` slots; fewer only where the catalogue has no more eligible items."""
    took = Laps()
    past = history(visitor, matrix)
    eligible = eligibility(request, visitor, matrix, bundle.retrieve.bought_days)
    took.lap("filter")
    craft, models = bundle.surfaces.of(request.surface), bundle.models
    question = asked(craft, request, visitor, past, models, matrix, eligible.mask)
    if question:
        shopper = Sources(bundle.retrieve, models, visitor, past, matrix, question.allowed[0])
        rows, brought = gather(question, shopper, bundle.retrieve.k, request.limit)
        candidates = Candidates(rows, brought, shopper.scores.of(rows, np.arange(len(rows))))
    else:
        candidates = retrieve(bundle.retrieve, models, visitor, past, matrix, eligible.mask)
    took.lap("retrieve")
    own = question and question.craft.order == "own"
    ranked = rank(Untrained() if own else bundle.ranker, candidates, visitor, past, matrix)
    took.lap("rank")
    if question:
        shelf = Shelf(lay(question, ranked, request.limit))
    else:
        shelf = diversify(bundle.diversify, ranked, matrix, request.limit, draw(request, visitor))
    took.lap("diversify")
    return Served(_slots(ranked, shelf, matrix), candidates, ranked, eligible, took, shelf.propensity)


def reorder(request: Request, bundle: Bundle, visitor: Visitor, matrix: ItemMatrix) -> Served:
    """Order the items that the storefront lists (category pages): no filter, no diversity, none is lost."""
    took = Laps()
    rows = matrix.rows_of(list(dict.fromkeys(request.items)))
    past = history(visitor, matrix)
    user = user_vector(bundle.models, visitor, past)
    scores = Scored(bundle.retrieve, bundle.models, user, past).of(rows)
    candidates = Candidates(rows, ("listed",) * len(rows), scores)
    took.lap("retrieve")
    ranked = rank(bundle.ranker, candidates, visitor, past, matrix)
    took.lap("rank")
    eligible = Eligibility(np.ones(len(matrix), np.bool_), {})
    return Served(_slots(ranked, Shelf(list(range(len(rows)))), matrix), candidates, ranked, eligible, took)


def bestsellers(request: Request, visitor: Visitor, matrix: ItemMatrix) -> tuple[Slot, ...]:
    """No model: the most viewed eligible items, for the holdout arm and as the first fallback."""
    mask = eligibility(request, visitor, matrix).mask
    popular = matrix.popularity()
    rows = top(popular + EVERY, mask, request.limit)
    return tuple(
        Slot(matrix.ids[row], slot, round(float(popular[row]), 6), "popular") for slot, row in enumerate(rows)
    )


def listed(request: Request, _: Visitor, matrix: ItemMatrix) -> tuple[Slot, ...]:
    """No model: the items of the request that the catalogue knows, in the storefront's own order."""
    known = [item for item in dict.fromkeys(request.items) if item in matrix.row]
    return tuple(Slot(item, slot, 0.0, "listed") for slot, item in enumerate(known))


def _slots(ranked: Ranked, shelf: Shelf, matrix: ItemMatrix) -> tuple[Slot, ...]:
    sources = [ranked.source[at] for at in shelf.places]
    if shelf.tail:
        sources[-1] = TAIL
    return tuple(
        Slot(matrix.ids[ranked.rows[at]], slot, round(float(ranked.score[at]), 6), source)
        for slot, (at, source) in enumerate(zip(shelf.places, sources, strict=True))
    )
