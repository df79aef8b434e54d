"""Why a product is not in a list: the first stage of the path at which it fell, and by how much."""

from typing import NamedTuple

import numpy as np

from serving.cascade.rungs import FALLBACK, PRECOMPUTED
from serving.live.seen import Recorded
from serving.stages.eligibility import eligibility, not_on_sale
from serving.tracing import Brought

STAGES = {
    "catalogue": "the release does not know it",
    "eligibility": "this shopper may not be shown it now",
    "rule": "a rule of the shop bars it, caps it or gives its slot away",
    "filter": "a filter of the surface bars it",
    "retrieval": "no source brought it",
    "ranking": "others came before it",
    "diversity": "it is too much like what stands already",
    "chance": "the long tail got its slot by a draw",
    "shown": "it is in the list",
}
FILTERS = {
    "kind": "the surface shows products of another kind for these",
    "price": "its price is not in the surface's range of that of the products asked for",
    "per_kind": "its kind has all the places that it may have",
}
DEPTH = 1_000  # to which a source is asked for a product that it did not bring


class Fall(NamedTuple):
    """`stage` is of STAGES. `by`: how much was wanting, in what `reason` names; None where it is no matter of
    degree."""

    stage: str
    reason: str
    by: float | None = None


def fall(told: Recorded, item: str) -> Fall:
    """Where `item` fell; the stages are asked in their order."""
    row = told.seen.matrix.row.get(item)
    if row is None:
        return Fall("catalogue", f"release {told.seen.bundle.digest} has no such product")
    for slot in told.slots:
        if slot.item_id == item:
            return Fall("shown", f"slot {slot.slot}")
    if barred := _barred(told, item, row):
        return barred
    if told.served is None:
        return _behind_bestsellers(told, row)
    places = np.flatnonzero(told.served.ranked.rows == row)
    return _outranked(told, row, int(places[0])) if len(places) else _not_brought(told, row)


def _barred(told: Recorded, item: str, row: int) -> Fall | None:
    matrix, now = told.seen.matrix, told.visitor.now
    if why := not_on_sale(matrix, row, now):
        return Fall("eligibility", why)
    if told.steering.allowed is not None and not told.steering.allowed[row]:
        rules = " and ".join(f"{one.rule!r} ({one.does})" for one in told.rules(row) if one.bars)
        return Fall("rule", f"rule {rules} bars it")
    found = told.served.eligible if told.served else eligibility(told.request, told.visitor, matrix)
    may = found.may.of(np.array([row]))[0]
    return None if may else Fall("eligibility", found.removed.get(item, "barred"))


def _behind_bestsellers(told: Recorded, row: int) -> Fall:
    if told.served_from not in (FALLBACK, PRECOMPUTED):
        return Fall("ranking", f"the list is of {told.served_from}, which was made without a score for it")
    popular = told.seen.matrix.popularity()
    short = (told.slots[-1].score if told.slots else 0.0) - float(popular[row])
    return Fall(
        "ranking", f"the bestsellers of the list have a popularity at least {short:.4f} greater", short
    )


def _not_brought(told: Recorded, row: int) -> Fall:
    if name := told.trace.filters(row) if told.trace.filters else None:
        return Fall("filter", f"{FILTERS[name]} ({name} of {told.request.surface})")
    deep = [(one, rank_in(one, row, deep=True)) for one in told.trace.brought]
    ranks = [(rank - _reach(told, one), rank, one) for one, rank in deep if rank is not None]
    if not ranks:
        asked = ", ".join(one.source for one in told.trace.brought)
        return Fall("retrieval", f"it is not among the first {DEPTH} of any source asked ({asked})")
    short, rank, near = min(ranks, key=lambda found: found[0])
    reach = rank - short
    reason = f"the nearest source, {near.source}, has it at rank {rank} and brought its first {reach}"
    return Fall("retrieval", reason, short)


def _reach(told: Recorded, one: Brought) -> int:
    """The rank in a source of the last candidate that it brought; 0 where others had brought them all."""
    assert told.served is not None
    candidates = told.served.candidates
    own = {int(r) for r, name in zip(candidates.rows, candidates.source, strict=True) if name == one.source}
    return max((rank for rank, row in enumerate(one.rows, 1) if row in own), default=0)


def rank_in(one: Brought, row: int, deep: bool = False) -> int | None:
    """From 1: among what the source was found to have; `deep`: else among its first DEPTH."""
    if row in one.rows:
        return one.rows.index(row) + 1
    found = list(one.deeper(DEPTH)) if deep else []
    return found.index(row) + 1 if row in found else None


def _outranked(told: Recorded, row: int, place: int) -> Fall:
    """A candidate: `place` is where it stands in the ranking."""
    served, trace, limit = told.served, told.trace, told.request.limit
    assert served is not None
    if trace.displaced == row:
        return Fall(
            "chance", "a draw gave its slot, the last one, to the long tail or to what nobody was shown"
        )
    if row in trace.capped:
        caps = " or ".join(repr(one.rule) for one in told.rules(row) if one.does == "at_most")
        return Fall("rule", f"rule {caps} allows no more of its kind")
    ranked, free = served.ranked, limit - len(served.pins)
    measure = ranked.score if ranked.relevance is None else ranked.relevance
    last = min(free, len(ranked.rows)) - 1
    short = float(measure[last] - measure[place]) if last >= 0 else None
    if place < free and trace.choices:
        nth, near = min(
            ((at, float(one.worth[one.place] - one.worth[place])) for at, one in enumerate(trace.choices)),
            key=lambda found: found[1],
        )
        alike = float(trace.choices[-1].closeness[place])
        reason = f"rank {place + 1} of {len(ranked.rows)}, but {alike:.2f} like what was chosen before it; "
        return Fall("diversity", f"{reason}it came nearest at choice {nth + 1}, {near:.4f} short", near)
    if place < limit and served.pins:
        rules = " and ".join(repr(rule) for rule in dict.fromkeys(pin.rule for pin in served.pins))
        return Fall("rule", f"rank {place + 1}, and pins of rule {rules} took slots", short)
    if trace.filters and short is not None and short < 0:
        name = trace.filters(row) or "per_kind"
        return Fall("filter", f"{FILTERS[name]} ({name} of {told.request.surface})")
    what = "score" if ranked.relevance is None else "relevance, as the rules weigh it,"
    reason = f"rank {place + 1} of {len(ranked.rows)}; its {what} is {short:.4f} below rank {last + 1}"
    return Fall("ranking", reason, short)
