"""What a worker explores: the products on offer in its rows, and its part of the day's budget.

A product that anybody was shown, in whatever slot and by whichever worker, leaves the offer until the next
`endcap unseen`: one impression is what it lacked. Requests only read and note; `poll`, beside them, is what
talks to Redis.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix, Rows
from feature_repo.assemble.visitor import Visitor
from feature_repo.clock import DAY_US
from serving.explore import budget
from serving.explore.budget import OnOffer
from serving.explore.chance import draw
from serving.explore.offer import Explore, Offer
from serving.types import Request, Slot

SEEK = b"endcap-explore"  # the draw owes nothing to the long tail's


class Explorer:
    """Follows `endcap:unseen`. The same draw in every arm, and the same products: no comparison holds it."""

    def __init__(
        self, redis: Any, params: Explore, clock: Callable[[], int] = lambda: time.time_ns() // 1000
    ) -> None:
        self._redis, self._params, self._clock = redis, params, clock
        self._offer = OnOffer(0, ())
        self._items: dict[str, None] = {}  # of the offer, those that nobody was shown as far as it is known
        self._rows: list[tuple[Mapping[str, int], Rows]] = []  # the same, by the rows of each catalogue
        self._untold: list[str] = []  # shown by this worker, of which the others do not know
        self._read = 0  # of the list of what was shown
        self._left = dict.fromkeys(params.surfaces, 0)
        self._day = 0

    async def poll(self) -> None:
        """Look for another offer and what others showed of it; take more of the day's budget.

        Raises redis' errors; what was to be told is told the next time.
        """
        day = self._clock() // DAY_US
        if day != self._day:
            self._day, self._left = day, dict.fromkeys(self._params.surfaces, 0)
        untold = list(self._untold)
        found, shown, got = await asyncio.to_thread(self._looked, day, dict(self._left), untold)
        del self._untold[: len(untold)]
        if found != self._offer:
            self._offer, self._items, self._read = found, dict.fromkeys(found.items), 0
            self._rows = []
        self._read += len(shown)
        self._forget(item for item in (*shown, *self._untold) if item in self._items)
        for surface, slots in got.items():
            self._left[surface] += slots

    def _looked(
        self, day: int, left: dict[str, int], untold: list[str]
    ) -> tuple[OnOffer, list[str], dict[str, int]]:
        found, shown = budget.exchanged(self._redis, untold, self._offer, self._read)
        lease, cap = self._params.lease, self._params.per_day
        low = [surface for surface, slots in left.items() if slots <= lease // 2] if found.items else []
        return found, shown, {one: budget.take(self._redis, day, one, lease, cap) for one in low}

    def offer(self, request: Request, visitor: Visitor, matrix: ItemMatrix) -> Offer | None:
        """What this list may explore; None where the budget is spent, nothing is on offer, or nobody asks."""
        if self._left.get(request.surface, 0) <= 0 or not self._items:
            return None
        drawn = draw(request, visitor, SEEK)
        rows = self._rows_in(matrix)
        return Offer(self._params.share, rows, drawn) if drawn is not None and len(rows) else None

    def shown(self, surface: str, slots: Iterable[Slot], explored: bool) -> None:
        """These were shown; `explored`: a slot of the budget is spent."""
        if explored:
            self._left[surface] -= 1
        if found := [slot.item_id for slot in slots if slot.item_id in self._items]:
            self._untold += found
            self._forget(found)

    def _forget(self, items: Iterable[str]) -> None:
        gone = list(items)
        for item in gone:
            self._items.pop(item, None)
        if gone:
            self._rows = [
                (row, rows[~np.isin(rows, [row[item] for item in gone if item in row])])
                for row, rows in self._rows
            ]

    def _rows_in(self, matrix: ItemMatrix) -> Rows:
        for row, rows in self._rows:
            if row is matrix.row:  # snapshots share it as long as no item comes or goes
                return rows
        rows = np.sort(matrix.rows_of(list(self._items)))
        self._rows = [*self._rows[-1:], (matrix.row, rows)]
        return rows
