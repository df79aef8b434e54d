"""One question, one list: the arm, the stored rows in time, the pipeline, and the ladder when a part fails.

live         the release of the shopper's arm, with the stored rows (without them: degraded)
precomputed  bestsellers: the holdout's list
fallback     bestsellers, else the bundle's popularity rail: the pipeline raised
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from feature_repo.assemble.visitor import Visitor
from feature_repo.errors import UnavailableError
from feature_repo.online.changes import APPLIED_TS
from serving import pipeline, prometheus
from serving.live.complaints import Complaints
from serving.live.deadline import TimelyRows
from serving.live.exposures import ExposureLog, explanation, exposure, sample
from serving.params import Serving
from serving.release.health import ArmHealth
from serving.release.loaded import Current, Loaded, Releases
from serving.release.router import CHALLENGER, CHAMPION, HOLDOUT, assign
from serving.types import NO_ROWS, Answer, Request, Slot, VisitorRows

NAMED = 20  # unknown items that `warnings` names
Filled = tuple[tuple[Slot, ...], str, pipeline.Served | None]  # slots, served_from, how they came about
FALLBACK, PIPELINE_FAILED, OVERLOADED = "fallback", "pipeline_failed", "overloaded"

log = logging.getLogger(__name__)


class Storefront:
    """Answers requests; never raises for what a client sent or for a part that is down."""

    def __init__(
        self,
        releases: Releases,
        redis: Redis,
        exposures: ExposureLog,
        health: ArmHealth,
        params: Serving,
        holdout_share: float,
        replay: bool,
    ) -> None:
        self._releases, self._redis, self._exposures, self._health = releases, redis, exposures, health
        self._params, self._holdout_share, self._replay = params, holdout_share, replay
        self._complain = Complaints(log)
        self._rows = TimelyRows(params, self._complain)
        self._in_flight = 0
        self._draw = random.Random().random  # which answers are sampled; no answer depends on it

    async def recommend(self, request: Request) -> Answer:
        """`request.limit` slots, fewer only where the catalogue has no more eligible items.

        Raises UnavailableError before the first release is loaded, and nothing else.
        """
        return await self._answer(request, pipeline.recommend)

    async def rank(self, request: Request) -> Answer:
        """`request.items` in the shopper's order; the holdout's order is the storefront's own."""
        return await self._answer(request, pipeline.reorder)

    async def now(self, request: Request | None = None) -> int:
        """us since 1970: the wall clock; in a replay `as_of`, else the newest event in the features."""
        if self._replay:
            if request is not None and request.as_of is not None:
                return request.as_of
            try:
                applied = await self._redis.get(APPLIED_TS)
            except Exception as error:
                self._complain("replay clock", error)
                applied = None
            if int(applied or 0):
                return int(applied)
        return time.time_ns() // 1000

    async def _answer(self, request: Request, stages: Any) -> Answer:
        current = self._releases.current
        if current is None:
            raise UnavailableError("no release is loaded yet")
        self._in_flight += 1
        try:
            return await self._fill(request, stages, current)
        finally:
            self._in_flight -= 1

    async def _fill(self, request: Request, stages: Any, current: Current) -> Answer:
        started = time.perf_counter()
        arm, loaded = self._arm(current, request.user_id or request.session_id)
        if self._replay:
            await self._catch_up()
        now = await self.now(request)
        rows, degraded = await self._read(loaded, request, now)
        loaded = loaded.as_of(now)
        read = time.perf_counter()
        visitor = pipeline.visitor_of(request, now, rows.user, rows.session)
        if degraded == OVERLOADED:
            slots, served_from, served = self._ladder(loaded, request, visitor, stages)
        else:
            slots, served_from, served = self._slots(arm, loaded, request, visitor, stages)
            degraded = PIPELINE_FAILED if served_from == FALLBACK else degraded
        ended = time.perf_counter()
        answer = Answer(
            request_id=os.urandom(16).hex(),
            surface=request.surface,
            items=slots,
            arm=arm,
            bundle=loaded.release.digest,
            served_from=served_from,
            degraded=degraded,
            feature_age_ms=_age_ms(now, rows, loaded),
            took_ms=round((ended - started) * 1000, 3),
            warnings=self._warnings(request, loaded),
            debug=explanation(served, visitor, loaded.matrix, self._replay)
            if served and request.debug
            else None,
        )
        self._exposures.add(exposure(request, answer, now))
        if served and slots and self._draw() < self._params.served_share:
            self._exposures.add_sample(
                sample(request, answer, now, served, loaded.matrix), served.ranked.matrix
            )
        stage_seconds = {"features": read - started, **(served.seconds if served else {})}
        self._count(request, answer, ended - started, stage_seconds, wanted(request, stages))
        return answer

    def _arm(self, current: Current, unit: str | None) -> tuple[str, Loaded]:
        """A shopper without any id is in no experiment: champion."""
        state = current.state
        percent = state.percent if current.challenger else 0
        arm = assign(unit, state.salt, self._holdout_share, percent) if unit else CHAMPION
        if arm == CHALLENGER and current.challenger:
            return arm, current.challenger
        return arm, current.champion

    async def _read(self, loaded: Loaded, request: Request, now: int) -> tuple[VisitorRows, str | None]:
        """(the shopper's rows, why there are none)."""
        if self._in_flight > self._params.max_in_flight:
            return NO_ROWS, OVERLOADED
        return await self._rows.read(loaded.features, request, now)

    async def _catch_up(self) -> None:
        """In a replay the item matrix is never behind: the lists must equal the offline ones."""
        try:
            await self._releases.refresh()
        except Exception as error:
            self._complain("refresh", error)

    def _slots(self, arm: str, loaded: Loaded, request: Request, visitor: Visitor, stages: Any) -> Filled:
        try:
            if arm == HOLDOUT:
                return self._unranked(loaded, request, visitor, stages), "precomputed", None
            served: pipeline.Served = stages(request, loaded.release, visitor, loaded.matrix)
            return served.slots, "live", served
        except Exception as error:
            self._complain("pipeline", error)
        return self._ladder(loaded, request, visitor, stages)

    def _ladder(self, loaded: Loaded, request: Request, visitor: Visitor, stages: Any) -> Filled:
        try:
            return self._unranked(loaded, request, visitor, stages), FALLBACK, None
        except Exception as error:
            self._complain("bestsellers", error)
        return rail(loaded, request), FALLBACK, None

    @staticmethod
    def _unranked(loaded: Loaded, request: Request, visitor: Visitor, stages: Any) -> tuple[Slot, ...]:
        if stages is pipeline.recommend:
            return pipeline.bestsellers(request, visitor, loaded.matrix)
        known = [item for item in dict.fromkeys(request.items) if item in loaded.matrix.row]
        return tuple(Slot(item, slot, 0.0, "listed") for slot, item in enumerate(known))

    def _warnings(self, request: Request, loaded: Loaded) -> tuple[str, ...]:
        found = []
        for name, items in (("items", request.items), ("cart", request.cart)):
            unknown = [item for item in items if item not in loaded.matrix.row]
            found += [f"{name}: {item!r} is not in the catalogue and was ignored" for item in unknown[:NAMED]]
            if len(unknown) > NAMED:
                found.append(f"{name}: {len(unknown) - NAMED} more are not in the catalogue")
        if request.as_of is not None and not self._replay:
            found.append("as_of: ignored, the service does not run with ENDCAP_REPLAY=1")
        return tuple(found)

    def _count(
        self, request: Request, answer: Answer, took: float, stages: Mapping[str, float], asked: int
    ) -> None:
        arm, missing = answer.arm, asked - len(answer.items)
        prometheus.ANSWERS.labels(request.surface, arm, answer.served_from).inc()
        prometheus.ANSWER_SECONDS.labels(arm).observe(took)
        for stage, seconds in stages.items():
            prometheus.STAGE_SECONDS.labels(stage).observe(seconds)
        if answer.degraded:
            prometheus.DEGRADED.labels(answer.degraded).inc()
        if answer.feature_age_ms is not None:
            prometheus.FEATURE_AGE.observe(answer.feature_age_ms / 1000)
        if missing > 0:
            prometheus.EMPTY_SLOTS.labels(request.surface).inc(missing)
        self._health.note(arm, took, error=answer.degraded == PIPELINE_FAILED, empty=missing > 0)


def rail(loaded: Loaded, request: Request) -> tuple[Slot, ...]:
    """The last rung: the bundle's popularity rail, less what the request itself names."""
    barred = {*request.items, *request.cart, *request.exclude}
    chosen = [item for item in loaded.release.rails["popular"] if item not in barred][: request.limit]
    return tuple(Slot(item, slot, 0.0, "popular") for slot, item in enumerate(chosen))


def wanted(request: Request, stages: Any) -> int:
    """How many slots a full answer has; /v1/rank promises none, it orders what it knows."""
    return request.limit if stages is pipeline.recommend else 0


def _age_ms(now: int, rows: VisitorRows, loaded: Loaded) -> int | None:
    """Age of the newest stored row of this shopper, else of any item; None where neither is stored."""
    newest = rows.newest or loaded.matrix.newest()
    return max(now - newest, 0) // 1000 if newest else None
