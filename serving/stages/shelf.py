"""From a ranking to slots: diversity within the rules' caps, more where these leave gaps, pins last."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from serving.explore.offer import UNSEEN, Offer
from serving.stages.diversify import TAIL, Diversify, diversify
from serving.stages.steering import UNSTEERED, Pin, Room, Steering, topped_up, with_pins
from serving.tracing import Trace
from serving.types import Filter, Ranked, Slot

# No diversity of its own, and no draw.
AS_RANKED = Diversify(trade_off=0, category_weight=0, tail_share=0, tail_below=0)


class Laid(NamedTuple):
    """The slots and the chance that the last of them holds what it holds.

    `explored`: whether that slot went to a product on offer; None where none could have it.
    """

    slots: tuple[Slot, ...]
    propensity: float
    explored: bool | None = None


def shelved(
    params: Diversify,
    ranked: Ranked,
    matrix: ItemMatrix,
    limit: int,
    drawn: float | None,
    standing: Sequence[Filter],
    steering: Steering,
    pins: Sequence[Pin],
    trace: Trace | None = None,
) -> Laid:
    """At most `limit` slots.

    `drawn` as serving.explore.chance.draw gives it; `pins` are those that this shopper may be shown. Where
    caps leave gaps, more is brought of `standing`, one filter after the other. Last comes what explores.
    """
    steered = bool(pins or steering.caps)
    room = Room(steering.caps, [pin.row for pin in pins]) if steered else None
    offer = steering.offer
    if any(pin.slot == limit - 1 for pin in pins):
        drawn = offer = None  # the last slot is taken
    shelf = diversify(params, ranked, matrix, limit - len(pins), drawn, room, trace)
    rows: list[int] = ranked.rows[shelf.places].tolist()
    tail = rows[-1] if shelf.tail else -1
    if room is not None:
        for may in standing if steering.caps else ():
            rows += topped_up(matrix, may, room, limit - len(pins) - len(rows))
    by_chance = len(shelf.places) > 0 and rows[-1] == ranked.rows[shelf.places[-1]]
    propensity, explored = shelf.propensity if by_chance else 1.0, None
    if offer is not None and len(rows) > 1:
        chances = {int(ranked.rows[at]): of for at, of in shelf.chances.items()} if by_chance else {}
        before = rows[-1]
        rows[-1], propensity, explored = _explored(offer, rows, standing[0], room, chances or {rows[-1]: 1.0})
        if trace is not None and explored:
            trace.displaced = before
    if room is not None:
        rows = with_pins(rows, pins, limit)
    place = {row: at for at, row in enumerate(ranked.rows.tolist())}
    entries = []
    for row in rows:
        at = place.get(row)
        source = TAIL if row == tail else "popular" if at is None else ranked.source[at]
        entries.append((row, 0.0 if at is None else ranked.score[at], source))
    if explored:
        entries[-1] = (*entries[-1][:2], UNSEEN)
    return Laid(slots_of(entries, matrix, steering, pins), propensity, explored)


def _explored(
    offer: Offer, rows: list[int], eligible: Filter, room: Room | None, chances: Mapping[int, float]
) -> tuple[int, float, bool | None]:
    """Of the last slot: its row, the chance of that, and whether it explores (None: nothing may be shown)."""
    if room is not None:
        room.free(rows[-1])
    found = offer.open(eligible, rows[:-1], room.has if room else lambda row: True)
    picked = offer.pick(found)
    row = rows[-1] if picked is None else picked
    if room is not None:
        room.take(row)
    chance = offer.chance(row, found, chances.get(row, 0.0))
    return row, chance, picked is not None if found else None


def every_one(
    ranked: Ranked, matrix: ItemMatrix, steering: Steering
) -> tuple[tuple[Slot, ...], tuple[Pin, ...]]:
    """Every row of the ranking, those that are not allowed last, and the pins that were shown."""
    rows: list[int] = ranked.rows.tolist()
    pins: list[Pin] = []
    if not steering.asks_nothing:
        allowed = ranked.rows if steering.allowed is None else ranked.rows[steering.allowed[ranked.rows]]
        shown = set(allowed.tolist())
        pins = steering.pinned(Filter(lambda asked: np.isin(asked, allowed)), len(rows))
        pinned = {pin.row for pin in pins}
        free = [row for row in rows if row not in pinned]
        rows = with_pins(sorted(free, key=lambda row: row not in shown), pins, len(rows))
    place = {row: at for at, row in enumerate(ranked.rows.tolist())}
    entries = [(row, ranked.score[place[row]], ranked.source[place[row]]) for row in rows]
    return slots_of(entries, matrix, steering, pins), tuple(pins)


def slots_of(
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
