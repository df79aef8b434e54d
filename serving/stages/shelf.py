"""From a ranking to slots: diversity within the rules' caps, more where these leave gaps, pins last."""

from collections.abc import Iterable, Sequence

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from serving.stages.diversify import TAIL, Diversify, diversify
from serving.stages.steering import UNSTEERED, Mask, Pin, Room, Steering, topped_up, with_pins
from serving.tracing import Trace
from serving.types import Ranked, Slot

# No diversity of its own, and no draw.
AS_RANKED = Diversify(trade_off=0, category_weight=0, tail_share=0, tail_below=0)


def shelved(
    params: Diversify,
    ranked: Ranked,
    matrix: ItemMatrix,
    limit: int,
    drawn: float | None,
    standing: Sequence[Mask],
    steering: Steering,
    pins: Sequence[Pin],
    trace: Trace | None = None,
) -> tuple[tuple[Slot, ...], float]:
    """At most `limit` slots, and the propensity of the last one.

    `drawn` as serving.stages.diversify.draw gives it; `pins` are those that this shopper may be shown. Where
    caps leave gaps, more is brought of `standing`, one mask (N,) after the other.
    """
    steered = bool(pins or steering.caps)
    room = Room(steering.caps, [pin.row for pin in pins]) if steered else None
    if any(pin.slot == limit - 1 for pin in pins):
        drawn = None  # the last slot is taken
    shelf = diversify(params, ranked, matrix, limit - len(pins), drawn, room, trace)
    rows: list[int] = ranked.rows[shelf.places].tolist()
    tail = rows[-1] if shelf.tail else -1
    if room is not None:
        for mask in standing if steering.caps else ():
            if (missing := limit - len(pins) - len(rows)) > 0:
                rows += topped_up(matrix, mask, room, missing)
        rows = with_pins(rows, pins, limit)
    place = {row: at for at, row in enumerate(ranked.rows.tolist())}
    entries = []
    for row in rows:
        at = place.get(row)
        source = TAIL if row == tail else "popular" if at is None else ranked.source[at]
        entries.append((row, 0.0 if at is None else ranked.score[at], source))
    by_chance = len(shelf.places) > 0 and rows[-1] == ranked.rows[shelf.places[-1]]
    return slots_of(entries, matrix, steering, pins), shelf.propensity if by_chance else 1.0


def every_one(
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
