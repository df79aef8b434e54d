"""What a worker explores: the products on offer in its rows, and its part of the day's budget.

A product that this worker has shown leaves its offer until the next `endcap unseen`: one impression is what
it lacked. Requests only read; `poll`, beside them, is what talks to Redis.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix, Rows
from feature_repo.assemble.visitor import Visitor
from feature_repo.clock import DAY_US
from serving.explore import budget
from serving.explore.budget import OnOffer
from serving.explore.chance import draw
from serving.explore.offer import Explore, Offer
from serving.types import Request

SEEK = b"endcap-explore"  # the draw owes nothing to the long tail's


class Explorer:
    """Follows `endcap:unseen`. The same draw in every arm, and the same products: no comparison holds it."""

    def __init__(
        self, redis: Any, params: Explore, clock: Callable[[], int] = lambda: time.time_ns() // 1000
    ) -> None:
        self._redis, self._params, self._clock = redis, params, clock
        self._offer = OnOffer(0, ())
        self._items: dict[str, None] = {}  # of the offer, those that this worker has not shown
        self._rows: list[tuple[list[str], Rows]] = []  # the same, by the ids of each catalogue
        self._left = dict.fromkeys(params.surfaces, 0)
        self._day = 0

    async def poll(self) -> None:
        """Look for another offer, and take more of the day's budget. Raises redis' errors."""
        day = self._clock() // DAY_US
        if day != self._day:
            self._day, self._left = day, dict.fromkeys(self._params.surfaces, 0)
        found, got = await asyncio.to_thread(self._looked, day, dict(self._left))
        if found != self._offer:
            self._offer, self._items = found, dict.fromkeys(found.items[: self._params.most])
            self._rows = []
        for surface, slots in got.items():
            self._left[surface] += slots

    def _looked(self, day: int, left: dict[str, int]) -> tuple[OnOffer, dict[str, int]]:
        found, lease, cap = budget.on_offer(self._redis), self._params.lease, self._params.per_day
        low = [surface for surface, slots in left.items() if slots <= lease // 2] if found.items else []
        return found, {surface: budget.take(self._redis, day, surface, lease, cap) for surface in low}

    def offer(self, request: Request, visitor: Visitor, matrix: ItemMatrix) -> Offer | None:
        """What this list may explore; None where the budget is spent, nothing is on offer, or nobody asks."""
        if self._left.get(request.surface, 0) <= 0 or not self._items:
            return None
        drawn = draw(request, visitor, SEEK)
        rows = self._rows_in(matrix)
        return Offer(self._params.share, rows, drawn) if drawn is not None and len(rows) else None

    def spent(self, surface: str, item: str) -> None:
        """A slot of the budget went to `item`."""
        self._left[surface] -= 1
        self._items.pop(item, None)
        self._rows = []

    def _rows_in(self, matrix: ItemMatrix) -> Rows:
        for ids, rows in self._rows:
            if ids is matrix.ids:  # snapshots share them as long as no item comes or goes
                return rows
        rows = np.sort(matrix.rows_of(list(self._items)))
        self._rows = [*self._rows[-1:], (matrix.ids, rows)]
        return rows
