"""One question, one list: the rung that its age allows, the arm, the stored rows in time, the pipeline.

The rung is chosen before anything is read (serving/cascade/queueing.py); where a part fails the next one
makes the list (serving/cascade/rungs.py).
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from redis.asyncio import Redis

from feature_repo.assemble.visitor import Visitor
from feature_repo.errors import UnavailableError
from feature_repo.online.changes import APPLIED_TS
from feature_repo.persons.pseudonyms import Persons
from serving import pipeline, prometheus
from serving.access.signatures import Signatures
from serving.access.tolls import Toll
from serving.beside.backstage import Asked, Backstage
from serving.beside.interleaver import Interleaver, undrawn
from serving.cascade.board import Board
from serving.cascade.queueing import Admission, Place, Rung
from serving.cascade.rungs import LIVE, PRECOMPUTED, RANK, RECOMMEND, Rungs, Task
from serving.explore.explorer import Explorer
from serving.flags.flagbook import Flagbook
from serving.live.complaints import Complaints
from serving.live.deadline import TimelyRows
from serving.live.exposures import ExposureLog, explanation, exposure, sample
from serving.live.products import products
from serving.live.seen import Recorded, Seen, age_ms, apart, short_of, steered, treated, warnings
from serving.params import Serving
from serving.pipeline import Served
from serving.rails.shared import SharedRails
from serving.rails.shopper_rails import ShopperRails
from serving.release.health import ArmHealth
from serving.release.loaded import Current, Loaded, Releases
from serving.release.router import CHALLENGER, CHAMPION, INTERLEAVED, assign
from serving.rules.rulebook import Rulebook
from serving.stages.steering import Steering
from serving.tracing import Trace
from serving.types import NO_ROWS, Answer, Request, Slot

NO_RELEASE = "no release is loaded yet"
PIPELINE_FAILED, OVERLOADED = "pipeline_failed", "overloaded"
UNHURRIED = Place(Rung.LIVE, 0.0, 0.0, 1)

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
        signatures: Signatures,
        guarded: Callable[[int], bool] = lambda version: True,
        rulebook: Rulebook | None = None,
        backstage: Backstage | None = None,
        admission: Admission | None = None,
        rails: ShopperRails | None = None,
        shared: SharedRails | None = None,
        persons: Persons | None = None,
        explorer: Explorer | None = None,
        flags: Flagbook | None = None,
        interleaver: Interleaver | None = None,
    ) -> None:
        """`guarded`: whether the challenger of a version of the rollout may be given to anybody."""
        self._releases, self._redis, self._exposures, self._health = releases, redis, exposures, health
        self._params, self._holdout_share, self._replay = params, holdout_share, replay
        self._guarded, self._backstage, self._signatures = guarded, backstage, signatures
        self._rulebook, self._explorer, self._flags = rulebook, explorer, flags
        self._interleaver = interleaver
        self._persons = persons or Persons()
        self._complain = Complaints(log)
        self._rows = TimelyRows(params, self._complain)
        self._admission, self._rails, self._board = admission, rails, Board()
        self._rungs = Rungs(self._complain, shared)
        self._in_flight = 0
        self._draw = random.Random().random  # which answers are sampled; no answer depends on it

    async def recommend(self, request: Request, toll: Toll | None = None) -> Answer:
        """`request.limit` slots, fewer only where the catalogue has no more eligible items.

        Raises UnavailableError before the first release is loaded, RequestError 429 where the `toll` is more
        than the caller may ask for, and nothing else.
        """
        return (await self._answer((request,), RECOMMEND, toll))[0]

    async def page(self, requests: Sequence[Request], toll: Toll | None = None) -> list[Answer]:
        """A list each, as of `recommend`, in their order, with one reading of the one shopper who asks.

        No product is in two of them, nor in any if the page names it: the first list has the first choice.
        """
        return await self._answer(requests, RECOMMEND, toll)

    async def rank(self, request: Request, toll: Toll | None = None) -> Answer:
        """`request.items` in the shopper's order; the holdout's order is the storefront's own."""
        return (await self._answer((request,), RANK, toll))[0]

    async def record(self, request: Request) -> Callable[[], Recorded]:
        """The list that `recommend` gives now, with all that its stages note down, as a call for a thread.

        Nobody is shown it: it is in no log, no count and no experiment. Raises as `recommend`.
        """
        if self._releases.current is None:
            raise UnavailableError(NO_RELEASE)
        user, session = self._persons.asking(request.user_id, request.session_id)
        request = replace(request, user_id=user, session_id=session)
        seen = await self._see(request, self._releases.current, UNHURRIED, None)
        seen = treated(self._flags, request, seen, self._complain)
        rules = self._rulebook.touching(request, seen.matrix, seen.now) if self._rulebook else lambda row: ()
        steering = steered(self._rulebook, request, seen, self._complain)
        visitor, steering = self._met(request, RECOMMEND, seen, steering)

        def made() -> Recorded:
            trace = Trace()
            slots, source, served, _, lacks = self._list(request, RECOMMEND, seen, visitor, steering, trace)
            trace = trace if served else Trace()  # what failed on its way decided nothing
            told = trace, warnings(request, seen.matrix, self._replay), rules
            return Recorded(request, seen, visitor, steering, slots, source, lacks, served, *told)

        return made

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

    async def _answer(self, requests: Sequence[Request], task: Task, toll: Toll | None) -> list[Answer]:
        current = self._releases.current
        if current is None:
            raise UnavailableError(NO_RELEASE)
        user, session = self._persons.asking(requests[0].user_id, requests[0].session_id)
        requests = [replace(request, user_id=user, session_id=session) for request in requests]
        admission = None if self._replay else self._admission
        place = admission.enter(len(requests)) if admission else UNHURRIED
        self._in_flight += 1
        try:
            seen = await self._see(requests[0], current, place, toll)
            # Of all lists at once: rules that change meanwhile are not of this page.
            treats = [treated(self._flags, request, seen, self._complain) for request in requests]
            asked = zip(requests, treats, strict=True)
            rules = [steered(self._rulebook, *each, self._complain) for each in asked]
            answers: list[Answer] = []
            for at, steering in enumerate(rules):
                if at:
                    await asyncio.sleep(0)  # others have their turn between two lists
                request = apart(requests, rules, at, answers, seen.matrix.ids)
                answers.append(self._fill(request, task, treats[at], steering))
            return answers
        finally:
            self._in_flight -= 1
            if admission:
                admission.leave(place)

    async def _see(self, request: Request, current: Current, place: Place, toll: Toll | None) -> Seen:
        """The one reading of the shopper, whom all lists of a page share."""
        started = time.perf_counter()
        unit = request.user_id or request.session_id
        arm, (bundle, features), version = self._arm(current, unit)
        if self._replay:
            await self._catch_up()
        now = await self.now(request)
        rung = Rung.BESTSELLERS if self._in_flight > self._params.max_in_flight else place.rung
        rows, degraded, rail = NO_ROWS, None, None
        if rung <= Rung.SHOPPER:
            rows, degraded = await self._rows.read(features, request, now, toll)
        if rung is Rung.SHOPPER and degraded is None:
            rail = await self._rows.rail(self._rails, request, bundle.digest, now)
        if rung > Rung.LIVE:
            degraded, version = OVERLOADED, None  # how much was asked at once says nothing of an arm
        if toll is not None:
            toll.settle(rows.charged)
        matrix = features.matrix.as_of(now)  # of this moment: a refresh beside the request puts another there
        read_s = time.perf_counter() - started
        mixing = self._interleaver if rung is Rung.LIVE else None
        rival = mixing.rival(current, arm, unit) if mixing else None
        return Seen(arm, bundle, version, now, matrix, rows, degraded, read_s, rung, rail, rival=rival)

    def _fill(self, request: Request, task: Task, seen: Seen, steering: Steering) -> Answer:
        began = time.perf_counter()
        rival = seen.rival if task is RECOMMEND else None
        if rival:
            seen = seen._replace(bundle=undrawn(seen.bundle))
        arm, bundle, version, now, matrix, rows, _, read_s, rung, _, treatment, _ = seen
        visitor, steering = self._met(request, task, seen, steering)
        slots, served_from, served, json, degraded = self._list(request, task, seen, visitor, steering)
        mixture = None
        if rival and served and self._interleaver:
            about = rival, request, visitor, matrix, steering, served, bundle, self._complain
            if mixture := self._interleaver.mixed(*about):
                arm, version, served, slots = INTERLEAVED, None, mixture.served, mixture.served.slots
        ended = time.perf_counter()
        if self._admission and not seen.plain:
            self._admission.paid(rung, ended - began)
        took_s = ended - began + read_s
        answer = Answer(
            request_id=self._signatures.sign(
                *(time.time_ns() // 1000, arm, request.surface, request.session_id, request.user_id),
                [slot.item_id for slot in slots],
            ),
            surface=request.surface,
            items=slots,
            arm=arm,
            bundle=bundle.digest,
            served_from=served_from,
            degraded=degraded,
            feature_age_ms=age_ms(rows, visitor, matrix),
            took_ms=round(took_s * 1000, 3),
            warnings=warnings(request, matrix, self._replay),
            debug=explanation(served, visitor, matrix, self._replay) if served and request.debug else None,
            products=products(slots, request.fields, matrix) if request.fields else (),
            json=json,
            flags=tuple(one.told() for one in treatment.evaluations),
        )
        rules = steering.version
        if self._explorer:
            self._explorer.shown(request.surface, slots, bool(served and served.explored))
        self._exposures.add(exposure(request, answer, now, version, served, rules, treatment, mixture))
        alone = served if mixture is None else None  # what two releases made teaches about neither
        if alone and slots and self._draw() < self._params.served_share:
            meta = sample(request, answer, now, alone, matrix, rules)
            self._exposures.add_sample(meta, alone.ranked.matrix)
        if alone and self._backstage and task is RECOMMEND and not treatment.moves:
            self._backstage.offer(Asked(request, answer, bundle, visitor, matrix, steering, alone))
        stage_seconds = {"features": read_s, **(served.seconds if served else {})}
        missing = request.limit - len(slots) if task.fills else 0
        prometheus.count(answer, took_s, stage_seconds, missing)
        # Under caps a short list may be what the rules ask for.
        short = task.fills and not steering.caps and served is not None and short_of(request, answer, served)
        if mixture is None:
            self._health.note(arm, took_s, error=degraded == PIPELINE_FAILED, empty=short)
        return answer

    def _met(self, request: Request, task: Task, seen: Seen, steering: Steering) -> tuple[Visitor, Steering]:
        """The shopper as this request meets him, and the rules with what he may be shown by chance."""
        visitor = pipeline.visitor_of(request, seen.now, seen.rows.user, seen.rows.session)
        may = task.fills and not seen.plain and seen.rung is Rung.LIVE and seen.rival is None
        if self._explorer and may:
            offer = self._explorer.offer(request, visitor, seen.matrix)
            steering = steering if offer is None else replace(steering, offer=offer)
        return visitor, steering

    def _list(
        self,
        request: Request,
        task: Task,
        seen: Seen,
        visitor: Visitor,
        steering: Steering,
        trace: Trace | None = None,
    ) -> tuple[tuple[Slot, ...], str, Served | None, bytes, str | None]:
        """Slots, served_from, how they came about, JSON at hand, and why they are less than they could be."""
        asked = task, request, seen.bundle, visitor, seen.matrix, steering, trace
        found = self._rungs.fill(seen.rung, seen.plain, seen.rail, self._board, *asked)
        failed = seen.rung is Rung.LIVE and found.served_from not in (LIVE, PRECOMPUTED)
        return *found, PIPELINE_FAILED if failed else seen.degraded

    def _arm(self, current: Current, unit: str | None) -> tuple[str, Loaded, int | None]:
        """The arm, its release, and the version of the rollout; None where this answer is no part of it.

        A shopper without any id is in no experiment: champion. So is everybody while no guard looks.
        """
        state = current.state
        alone = state.challenger is not None and not self._guarded(state.version)
        percent = state.percent if current.challenger and not alone else 0
        arm = assign(unit, state.salt, self._holdout_share, percent) if unit else CHAMPION
        chosen = current.challenger if arm == CHALLENGER and current.challenger else current.champion
        return arm, chosen, None if alone else state.version

    async def _catch_up(self) -> None:
        """In a replay the item matrix is never behind: the lists must equal the offline ones."""
        try:
            await self._releases.refresh()
        except Exception as error:
            self._complain("refresh", error)
