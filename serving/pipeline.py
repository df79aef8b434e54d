"""The product on one screen: filter -> retrieve -> rank -> diversify -> pins -> slots."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor, history
from feature_repo.folds.owner import visible
from serving.stages.diversify import TAIL, Diversify, diversify, draw
from serving.stages.eligibility import Eligibility, eligibility
from serving.stages.rank import Ranker, rank
from serving.stages.retrieve import EVERY, Models, Retrieve, Scored, retrieve, top, user_vector
from serving.stages.steering import UNSTEERED, Pin, Room, Steering, topped_up, weighed, with_pins
from serving.types import Candidates, Floats, Ranked, Request, Rows, Slot

AS_RANKED = Diversify(trade_off=0, category_weight=0, tail_share=0, tail_below=0)
WEIGHED = 120  # of the most viewed, among which the rules' factors may change the order


@dataclass(frozen=True)
class Bundle:
    """A release in memory: models, ranker and settings that move together or not at all.

    A candidate that no bundle was written of yet has no manifest and no rails.
    """

    models: Models
    ranker: Ranker
    retrieve: Retrieve
    diversify: Diversify
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

    `propensity`: as serving.stages.diversify.Shelf has it. `pins`: the rules' that it shows.
    """

    slots: tuple[Slot, ...]
    candidates: Candidates
    ranked: Ranked
    eligible: Eligibility
    seconds: Mapping[str, float]
    propensity: float = 1.0
    pins: tuple[Pin, ...] = ()


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
    request: Request, bundle: Bundle, visitor: Visitor, matrix: ItemMatrix, steering: Steering = UNSTEERED
) -> Served:
    """Fill `request.limit` slots; fewer only where the catalogue has no more that may be shown."""
    took = Laps()
    past = history(visitor, matrix)
    eligible = eligibility(request, visitor, matrix, bundle.retrieve.bought_days, steering.allowed)
    pins = steering.pinned(eligible.mask, request.limit)
    took.lap("filter")
    rows = [pin.row for pin in pins]
    candidates = retrieve(bundle.retrieve, bundle.models, visitor, past, matrix, eligible.mask, rows)
    took.lap("retrieve")
    ranked = rank(bundle.ranker, candidates, visitor, past, matrix)
    took.lap("rank")
    ranked = weighed(ranked, steering.factor)
    drawn = draw(request, visitor)
    slots, propensity = _shelved(
        bundle.diversify, ranked, matrix, request.limit, drawn, eligible, steering, pins
    )
    took.lap("diversify")
    return Served(slots, candidates, ranked, eligible, took, propensity, tuple(pins))


def reorder(
    request: Request, bundle: Bundle, visitor: Visitor, matrix: ItemMatrix, steering: Steering = UNSTEERED
) -> Served:
    """Order the items that the storefront lists (category pages): no filter, no diversity, none is lost.

    What the rules do not allow comes last; a pinned product moves to its slot if it is listed.
    """
    took = Laps()
    rows = matrix.rows_of(list(dict.fromkeys(request.items)))
    past = history(visitor, matrix)
    user = user_vector(bundle.models, visitor, past)
    scores = Scored(bundle.retrieve, bundle.models, user, past).of(rows)
    candidates = Candidates(rows, ("listed",) * len(rows), scores)
    took.lap("retrieve")
    ranked = weighed(rank(bundle.ranker, candidates, visitor, past, matrix), steering.factor)
    took.lap("rank")
    eligible = Eligibility(np.ones(len(matrix), np.bool_), {})
    slots, pins = _listed(ranked, matrix, steering)
    return Served(slots, candidates, ranked, eligible, took, pins=pins)


def bestsellers(
    request: Request, visitor: Visitor, matrix: ItemMatrix, steering: Steering = UNSTEERED
) -> tuple[Slot, ...]:
    """No model: the most viewed eligible items, for the holdout arm and as the first fallback.

    The rules hold as for every list, on views as relevance.
    """
    eligible = eligibility(request, visitor, matrix, allowed=steering.allowed)
    popular = matrix.popularity()
    if steering.asks_nothing:
        found = top(popular + EVERY, eligible.mask, request.limit)
        return _slots([(row, popular[row], "popular") for row in found], matrix)
    pins = steering.pinned(eligible.mask, request.limit)
    best = top(popular + EVERY, eligible.mask, max(WEIGHED, request.limit))
    rows = np.array(list(dict.fromkeys([*best, *(pin.row for pin in pins)])), np.int64)
    ranked = Ranked(rows, popular[rows].astype(np.float32), ("popular",) * len(rows), _no_values(rows))
    ranked = weighed(ranked, steering.factor)
    return _shelved(AS_RANKED, ranked, matrix, request.limit, None, eligible, steering, pins)[0]


def listed(
    request: Request, _: Visitor, matrix: ItemMatrix, steering: Steering = UNSTEERED
) -> tuple[Slot, ...]:
    """No model: the items of the request that the catalogue knows, in the storefront's own order.

    The rules hold as in `reorder`, on the place in that order as relevance.
    """
    rows = matrix.rows_of(list(dict.fromkeys(request.items)))
    place = np.arange(len(rows), 0, -1, dtype=np.float32)
    ranked = weighed(Ranked(rows, place, ("listed",) * len(rows), _no_values(rows)), steering.factor)
    slots, __ = _listed(ranked, matrix, steering)
    return tuple(replace(slot, score=0.0) for slot in slots)


def _no_values(rows: Rows) -> Floats:
    return np.zeros((len(rows), 0), np.float32)


def _shelved(
    params: Diversify,
    ranked: Ranked,
    matrix: ItemMatrix,
    limit: int,
    drawn: float | None,
    eligible: Eligibility,
    steering: Steering,
    pins: Sequence[Pin],
) -> tuple[tuple[Slot, ...], float]:
    """The slots, and the propensity of the last one."""
    steered = bool(pins or steering.caps)
    room = Room(steering.caps, [pin.row for pin in pins]) if steered else None
    if any(pin.slot == limit - 1 for pin in pins):
        drawn = None  # the last slot is taken
    shelf = diversify(params, ranked, matrix, limit - len(pins), drawn, room)
    rows: list[int] = ranked.rows[shelf.places].tolist()
    tail = rows[-1] if shelf.tail else -1
    if room is not None:
        if steering.caps and (missing := limit - len(pins) - len(rows)) > 0:
            rows += topped_up(matrix, eligible.mask, room, missing)
        rows = with_pins(rows, pins, limit)
    place = {row: at for at, row in enumerate(ranked.rows.tolist())}
    entries = []
    for row in rows:
        at = place.get(row)
        source = TAIL if row == tail else "popular" if at is None else ranked.source[at]
        entries.append((row, 0.0 if at is None else ranked.score[at], source))
    by_chance = len(shelf.places) > 0 and rows[-1] == ranked.rows[shelf.places[-1]]
    return _slots(entries, matrix, steering, pins), shelf.propensity if by_chance else 1.0


def _listed(
    ranked: Ranked, matrix: ItemMatrix, steering: Steering
) -> tuple[tuple[Slot, ...], tuple[Pin, ...]]:
    """Every row of the ranking, those that are not allowed last, and the pins that were shown."""
    rows: list[int] = ranked.rows.tolist()
    pins: list[Pin] = []
    if not steering.asks_nothing:
        allowed = np.zeros(len(matrix), np.bool_)
        allowed[rows] = True if steering.allowed is None else steering.allowed[rows]
        pins = steering.pinned(allowed, len(rows))
        pinned = {pin.row for pin in pins}
        free = [row for row in rows if row not in pinned]
        rows = with_pins(sorted(free, key=lambda row: not allowed[row]), pins, len(rows))
    place = {row: at for at, row in enumerate(ranked.rows.tolist())}
    entries = [(row, ranked.score[place[row]], ranked.source[place[row]]) for row in rows]
    return _slots(entries, matrix, steering, pins), tuple(pins)


def _slots(
    entries: Iterable[tuple[int, float, str]],
    matrix: ItemMatrix,
    steering: Steering = UNSTEERED,
    pins: Sequence[Pin] = (),
) -> tuple[Slot, ...]:
    """Of (row, score, source) each."""
    return tuple(
        Slot(matrix.ids[row], slot, round(float(score), 6), source, steering.rule_of(row, pins))
        for slot, (row, score, source) in enumerate(entries)
    )
