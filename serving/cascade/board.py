"""The cheapest list: bestsellers of a shopper of whom nothing is known, made and encoded beforehand.

It is what serving.stages.bestsellers gives such a shopper: one list for each set of rules that holds and each
length, of one snapshot of the items, made when it is first asked for. Where the request itself bars a product
that stands in it, there is none.
"""

from typing import NamedTuple

import orjson

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.clock import SECOND_US
from serving import pipeline
from serving.stages.bestsellers import bestsellers
from serving.stages.steering import Steering
from serving.types import Request, Slot

MOST = 64  # lists that are held
OLDEST_US = SECOND_US  # what comes on sale meanwhile may stand in the next one


class Encoded(NamedTuple):
    """A list, the same as JSON, and its ids."""

    slots: tuple[Slot, ...]
    json: bytes
    ids: frozenset[str]


class Board:
    """The lists of one worker; a snapshot with other prices, stock or counts begins a new board."""

    def __init__(self) -> None:
        self._matrix: ItemMatrix | None = None
        self._made_at = 0
        self._lists: dict[tuple[int, int], tuple[Steering, Encoded]] = {}

    def of(self, request: Request, matrix: ItemMatrix, steering: Steering, now: int) -> Encoded | None:
        """The list for `request` at `now` (us)."""
        if matrix is not self._matrix or not 0 <= now - self._made_at < OLDEST_US or len(self._lists) >= MOST:
            self._matrix, self._made_at = matrix, now
            self._lists.clear()
        key = id(steering) if steering.rules else 0, request.limit
        _, found = self._lists.get(key, (None, None))
        if found is None:
            nobody = pipeline.visitor_of(Request(request.surface), now, None, None)
            slots = bestsellers(Request(request.surface, limit=request.limit), nobody, matrix, steering)
            found = Encoded(slots, encode(slots), frozenset(slot.item_id for slot in slots))
            self._lists[key] = steering, found  # the steering is held, so that no other gets its id
        barred = (*request.exclude, *request.items, *request.cart)
        return None if barred and not found.ids.isdisjoint(barred) else found


def encode(slots: tuple[Slot, ...]) -> bytes:
    """As the answer's `items`."""
    return orjson.dumps([as_told(slot) for slot in slots])


def as_told(slot: Slot) -> dict[str, object]:
    """A slot as JSON has it; orjson takes twice as long for the dataclass."""
    told: dict[str, object] = {
        "item_id": slot.item_id,
        "slot": slot.slot,
        "score": slot.score,
        "source": slot.source,
    }
    if slot.rule:
        told["rule"] = slot.rule
    return told
