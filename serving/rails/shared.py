"""The lists of cohorts and categories in a worker's memory: a request finds one without reading anything."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from redis import Redis

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.clock import SECOND_US
from serving import prometheus
from serving.rails.rail import SHARED, RailParams, Shared, cohort_of, decode, stale
from serving.types import Request

COHORT, CATEGORY = "cohort_rail", "category_rail"


class SharedRails:
    """Follows `endcap:rails:shared`."""

    def __init__(self, redis: Redis, params: RailParams) -> None:
        self._redis, self._max_age_s = redis, params.max_age_s
        self._held: Shared | None = None

    async def poll(self) -> None:
        """Look once. Raises redis' errors; what was read before is served on while it is young enough."""
        self._held = await asyncio.to_thread(self._looked)
        age_s = time.time() - self._held.at_us / SECOND_US if self._held else float("nan")
        prometheus.RAILS_AGE.set(age_s)

    def _looked(self) -> Shared | None:
        redis: Any = self._redis
        at_us = redis.hget(SHARED, "at_us")
        if at_us is None:
            return self._held  # Redis was emptied, or nobody makes them: age decides
        if self._held and int(at_us) == self._held.at_us:
            return self._held
        found: Shared = decode(redis.hget(SHARED, "rails"), Shared)
        return found

    def of(
        self, request: Request, matrix: ItemMatrix, bundle: str, now: int
    ) -> Iterator[tuple[str, list[str]]]:
        """(name of the rung, its items) that fit `request`, the best first; none where they are too old."""
        held = self._held
        if held is None:
            return
        if why := stale(held, bundle, now, self._max_age_s):
            prometheus.RAILS_REFUSED.labels("shared", why).inc()
            return
        if by_cohort := held.cohorts.get(request.surface):
            items = by_cohort.get(cohort_of(request.context)) or by_cohort.get("|")
            if items:
                yield COHORT, items
        path = category_of(request, matrix)
        while path:
            if items := held.categories.get(path):
                yield CATEGORY, items
                return
            path = path.rpartition("/")[0]


def category_of(request: Request, matrix: ItemMatrix) -> str:
    """Where the shopper is: the page's category, else that of the newest product named; "" for nowhere."""
    if request.context.category:
        return request.context.category
    for item in (*reversed(request.items), *reversed(request.cart)):
        if (row := matrix.row.get(item)) is not None:
            return str(matrix.categories[matrix.category[row]])
    return ""
