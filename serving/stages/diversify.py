"""The shelf as a whole: neighbours differ, and now and then the last slot is the long tail's.

Maximal marginal relevance over category and price band (Carbonell and Goldstein, SIGIR 1998). A ranker that
is fitted on what was shown shows the same again: in a share of the answers the last slot goes to a candidate
that hardly anybody was shown, by a draw whose chance is known and logged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.errors import ParamsError
from serving.stages.steering import Room, scaled
from serving.tracing import Choice, Trace
from serving.types import Ranked

TAIL = "tail"  # the source that the slot of the long tail names


@dataclass(frozen=True)
class Diversify:
    """Section `diversify` of params.yaml."""

    trade_off: float  # 0 = relevance alone, 1 = difference alone
    category_weight: float  # similarity of two items of one category; the rest is for one price band
    tail_share: float  # of the answers whose last slot is the long tail's; 0 = none
    tail_below: float  # an item is of the long tail below this share of the catalogue's mean exposure

    def __post_init__(self) -> None:
        if not 0 <= self.tail_share <= 1:
            raise ParamsError(
                f"diversify.tail_share: {self.tail_share} is not allowed; allowed: a share, 0 to 1. "
                "Next: 0.25 gives the long tail a slot in every fourth answer, 0 in none"
            )


class Shelf(NamedTuple):
    """Positions in the ranking, in the order of the slots.

    `tail`: the last slot is the long tail's. `propensity`: the chance, over draws, that the last slot holds
    what it holds; 1 where the long tail has no candidate. The other slots do not depend on the draw.
    `chances`: of every place that the last slot might hold; empty where that is no matter of chance.
    """

    places: list[int]
    tail: bool = False
    propensity: float = 1.0
    chances: Mapping[int, float] = {}


def diversify(
    params: Diversify,
    ranked: Ranked,
    matrix: ItemMatrix,
    limit: int,
    drawn: float | None = None,
    room: Room | None = None,
    trace: Trace | None = None,
) -> Shelf:
    """At most `limit` of the candidates; `drawn` as `draw` gives it, None: no slot for the long tail.

    `room` says what the rules' pins and caps leave, and is then what this shelf leaves.

    relevance = score scaled to [0, 1] over the candidates;
    greedy: argmax of (1 - t) * relevance - t * (greatest similarity to what is chosen).

    With t of 0 and without a draw the places are 0, 1, 2, ...: the ranker's order. A list of one slot has
    no room for the long tail. Its candidates have one chance each: the best alone would be the same few for
    everybody, and whom no draw can reach nobody can learn about.
    """
    n = min(limit, len(ranked.rows))
    if params.trade_off:
        chosen = _varied(params, ranked, matrix, n, room, trace)
    else:
        chosen = list(range(n)) if room is None else _fitting(ranked, n, room, trace)
    share = params.tail_share
    if drawn is None or len(chosen) < 2 or share == 0:
        return Shelf(chosen)
    seldom = matrix.exposure()[ranked.rows] < params.tail_below
    seldom[chosen[:-1]] = False
    tail = seldom.nonzero()[0].tolist()
    last = at = chosen[-1]
    if room is not None:
        room.free(int(ranked.rows[last]))
        tail = [place for place in tail if room.has(int(ranked.rows[place]))]
    if tail and drawn < share:  # then drawn / share is uniform in [0, 1)
        at = tail[min(int(drawn / share * len(tail)), len(tail) - 1)]
    if room is not None:
        room.take(int(ranked.rows[at]))
    if not tail:
        return Shelf(chosen)
    chances = dict.fromkeys(tail, share / len(tail))
    chances[last] = chances.get(last, 0.0) + 1 - share
    if trace is not None and at != last:
        trace.displaced = int(ranked.rows[last])
    return Shelf([*chosen[:-1], at], at != last, chances[at], chances)


def _fitting(ranked: Ranked, n: int, room: Room, trace: Trace | None) -> list[int]:
    chosen: list[int] = []
    for place, row in enumerate(ranked.rows.tolist()):
        if len(chosen) == n:
            break
        if room.has(row):
            room.take(row)
            chosen.append(place)
        elif trace is not None:
            trace.capped.add(row)
    return chosen


def _varied(
    params: Diversify,
    ranked: Ranked,
    matrix: ItemMatrix,
    n: int,
    room: Room | None = None,
    trace: Trace | None = None,
) -> list[int]:
    if n == 0:
        return []
    relevance = scaled(ranked.score) if ranked.relevance is None else ranked.relevance
    category, band = matrix.category[ranked.rows], matrix.price_band[ranked.rows]
    closest = np.zeros(len(relevance))  # similarity to the nearest item chosen so far
    value = (1 - params.trade_off) * relevance
    chosen: list[int] = []
    if trace is not None:
        trace.relevance = relevance
    for _ in range(len(value)):
        if len(chosen) == n:
            break
        worth = value - params.trade_off * closest
        best = int(np.argmax(worth))
        value[best] = -np.inf
        if room is not None:
            if not room.has(int(ranked.rows[best])):
                if trace is not None:
                    trace.capped.add(int(ranked.rows[best]))
                continue
            room.take(int(ranked.rows[best]))
        chosen.append(best)
        if trace is not None:
            trace.choices.append(Choice(best, worth, closest.copy()))
        same_category = (category == category[best]) & (category[best] > 0)
        same_band = (band == band[best]) & (band[best] > 0)
        similarity = params.category_weight * same_category + (1 - params.category_weight) * same_band
        np.maximum(closest, similarity, out=closest)
    return chosen
