"""The BentoML service: start the parts, keep the background tasks running, mount the routes.

    bentoml serve serving.service:Endcap        (`endcap serve` adds settings and a supervisor)

The routes are a mounted ASGI app: p50 of a bare endpoint 0.12 ms, against 0.64 ms for a Bento API. Bento's
own metrics are off: they label by raw path, so any client could fill the memory. /metrics is ours.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain

from feature_repo.quiet import hush

hush()

import bentoml  # noqa: E402  (after hush: libraries read their switches at import)
from redis import RedisError  # noqa: E402
from starlette.exceptions import HTTPException  # noqa: E402

from feature_repo.eventlog.keys import StreamParams  # noqa: E402
from feature_repo.eventlog.open import open_writer  # noqa: E402
from feature_repo.online.connection import QUICK_S, beside_requests, of_requests, wires  # noqa: E402
from feature_repo.online.newborns import NewbornParams  # noqa: E402
from feature_repo.params import load  # noqa: E402
from feature_repo.persons.privacy import persons as of_the_shop  # noqa: E402
from feature_repo.persons.tombstones import follow  # noqa: E402
from feature_repo.ports import redis_url  # noqa: E402
from serving import lifeline  # noqa: E402
from serving.access.counting import Verdicts  # noqa: E402
from serving.access.credentials import Keys  # noqa: E402
from serving.access.policy import Access  # noqa: E402
from serving.access.signatures import Signatures  # noqa: E402
from serving.access.tolls import TollGate  # noqa: E402
from serving.beside.backstage import Backstage  # noqa: E402
from serving.beside.interleaver import Interleaver  # noqa: E402
from serving.beside.trial import InterleaveParams, ShadowParams  # noqa: E402
from serving.beside.tryout import Tryout  # noqa: E402
from serving.beside.understudy import Understudy  # noqa: E402
from serving.cascade.queueing import Admission, Cascade  # noqa: E402
from serving.compat.doors import routes as compat_routes  # noqa: E402
from serving.explore.explorer import Explorer  # noqa: E402
from serving.explore.offer import Explore  # noqa: E402
from serving.flags.evaluations import Evaluations  # noqa: E402
from serving.flags.flagbook import Flagbook  # noqa: E402
from serving.http.api import Desk, build_app  # noqa: E402
from serving.http.connections import install  # noqa: E402
from serving.http.ingress import Ingress  # noqa: E402
from serving.http.inquiry import Inquiries  # noqa: E402
from serving.http.origins import Cors  # noqa: E402
from serving.live.disk import Disk, redis_folder  # noqa: E402
from serving.live.exposures import ExposureLog  # noqa: E402
from serving.live.online_features import OnlineFeatures  # noqa: E402
from serving.live.pulse import Liveness, Pulse  # noqa: E402
from serving.live.storefront import Storefront  # noqa: E402
from serving.live.wire import Wire  # noqa: E402
from serving.params import Serving, replaying  # noqa: E402
from serving.payloads.terms import Terms  # noqa: E402
from serving.rails.rail import RailParams  # noqa: E402
from serving.rails.shared import SharedRails  # noqa: E402
from serving.rails.shopper_rails import ShopperRails  # noqa: E402
from serving.release.health import ArmHealth  # noqa: E402
from serving.release.loaded import Features, Releases  # noqa: E402
from serving.release.router import RouterParams  # noqa: E402
from serving.release.vigil import Vigil  # noqa: E402
from serving.rules.rulebook import Rulebook  # noqa: E402
from serving.shortcuts import Direct  # noqa: E402

PARAMS = load("serving", Serving)
ACCESS = load("access", Access)
KEYS = Keys.read(ACCESS.keys)  # a file that others may read ends the start here
HEALTH_S = LAG_S = AGES_S = DISK_S = PERSONS_S = 1.0
SIGNING_S = 2.0
NO_RELEASE = (
    "no release is loaded. Next: `endcap promote` in a new shop; `endcap restore` where one was served, "
    "for then Redis has lost it"
)
Job = Callable[[], Awaitable[None]]
log = logging.getLogger(__name__)
CORS = load("cors", Cors)
ORIGINS = dict.fromkeys((*CORS.origins, *chain(*ACCESS.keys.origins.values())))
app = build_app(replace(CORS, origins=tuple(ORIGINS)), compat_routes(load("compat", Terms)))
install(PARAMS, bentoml.server_context.worker_index)


@bentoml.service(
    name="endcap",
    workers=PARAMS.workers,
    traffic={"timeout": PARAMS.traffic_timeout_s},
    tracing={"excluded_urls": ".*"},  # 0.3 ms a request otherwise, and there is no switch
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
@bentoml.asgi_app(app, path="/")
class Endcap:
    """Recommendations for an online shop; see docs/api.md."""

    @bentoml.on_startup
    async def open(self) -> None:
        """Load what Redis points to. Without Redis or a release the worker comes up, but is not ready."""
        lifeline.hold()
        url = redis_url()
        # No retries inside a request: the deadline is short and the ladder is the answer to a failure.
        self._redis, self._blocking = of_requests(url), beside_requests(url)
        self._pulse = pulse = Pulse(load("liveness", Liveness))
        rulebook = Rulebook(self._blocking, lambda: self._releases.snapshots())
        opening = partial(_online_features, url)
        self._releases = Releases(self._blocking, opening, PARAMS.worker_silent_s, rulebook.ready)
        self._exposures = ExposureLog(self._redis, PARAMS)
        health = ArmHealth(self._blocking)
        holdout = load("router", RouterParams).holdout_share
        vigil = Vigil(self._blocking)
        shadowed = partial(self._releases.beside, purpose="shadow")
        understudy = Understudy(self._blocking, shadowed, rulebook.steering)
        mixed_in = partial(self._releases.beside, purpose="interleaving")
        mixing = load("interleave", InterleaveParams)
        interleaver = Interleaver(self._blocking, mixed_in, rulebook.steering, mixing)
        tryout = Tryout(rulebook, PARAMS.rules_shadow_share)
        backstage = Backstage((tryout, understudy), self._exposures.add_pair)
        admission, rails = Admission(load("cascade", Cascade)), load("rails", RailParams)
        shared = SharedRails(self._blocking, rails)
        signatures = Signatures(ACCESS.signing)
        persons = of_the_shop()
        explore = load("explore", Explore)
        explorer = Explorer(self._blocking, explore) if explore.share else None
        flags = Flagbook(self._blocking, rulebook.keep)
        storefront = Storefront(
            *(self._releases, self._redis, self._exposures, health, PARAMS, holdout, replaying()),
            signatures=signatures,
            guarded=vigil.guarded,
            rulebook=rulebook,
            backstage=backstage,
            admission=admission,
            rails=ShopperRails(Wire(wires(url), QUICK_S).ask, rails),
            shared=shared,
            persons=persons,
            explorer=explorer,
            flags=flags,
            interleaver=interleaver,
        )
        self._writer = open_writer(self._redis, load("stream", StreamParams), PARAMS.seen_ttl_s)
        disk = Disk(self._redis, redis_folder(), PARAMS.min_free_mib)
        half_s = PARAMS.write_deadline_ms / 2000  # the write has the rest
        verdicts = Verdicts(Wire(wires(url), half_s).ask, signatures, ACCESS.counting)
        ingress = Ingress(self._redis, self._writer, PARAMS, disk, replaying(), verdicts, persons)

        async def sign() -> None:
            await asyncio.to_thread(signatures.follow, self._blocking, time.time_ns() // 1000)

        await _attempt("signing", sign, pulse)
        self._inquiries = Inquiries(storefront, PARAMS.explain_timeout_s, PARAMS.explain_waiting)
        app.state.desk = Desk(storefront, ingress, PARAMS, KEYS, TollGate(ACCESS.rates), self._inquiries)
        app.state.desk = replace(app.state.desk, evaluations=Evaluations(flags, persons, holdout))
        report = asyncio.create_task(_every(PARAMS.poll_s, "report", self._releases.report, pulse))
        # A worker that starts while Redis does leaves the requests to the others until it has its release.
        late = asyncio.get_running_loop().time() + PARAMS.start_patience_s
        while not await _attempt("release", self._releases.poll, pulse):
            if asyncio.get_running_loop().time() > late:
                break
            await asyncio.sleep(PARAMS.poll_s)
        await _attempt("rules", rulebook.poll, pulse)
        await _attempt("flags", flags.poll, pulse)
        await _attempt("report", self._releases.report, pulse)  # whoever finds it ready reads what it serves
        pulse.begin()  # loading took its time

        async def lag() -> None:
            pulse.beat("consumers", await ingress.publish_lag())

        async def ages() -> None:
            admission.publish()
            await pulse.publish()

        # Every one has a heartbeat and a limit under its name; the guard's own age is the vigil's to judge.
        jobs: Iterable[tuple[str, float, Job]] = (
            ("release", PARAMS.poll_s, self._releases.poll),
            ("vigil", PARAMS.poll_s, vigil.look),
            ("rules", PARAMS.rules_poll_s, rulebook.poll),
            ("flags", PARAMS.rules_poll_s, flags.poll),
            ("items", PARAMS.refresh_s, self._releases.refresh),
            ("health", HEALTH_S, health.publish),
            ("lag", LAG_S, lag),
            ("erased", PERSONS_S, partial(follow, self._redis, persons)),
            ("disk", DISK_S, disk.look),
            ("rails", rails.look_s, shared.poll),
            ("signing", SIGNING_S, sign),
            ("ages", AGES_S, ages),
            ("explore", explore.poll_s, explorer.poll if explorer else _nothing),
            ("understudy", load("shadow", ShadowParams).poll_s, understudy.poll),
            ("interleaver", PARAMS.poll_s, interleaver.poll),
        )
        running = [_every(seconds, name, job, pulse) for name, seconds, job in jobs]
        running.append(self._exposures.run(partial(pulse.beat, "exposures")))
        running.append(backstage.run(partial(pulse.beat, "shadow"), partial(pulse.missed, "shadow")))
        self._tasks = [report, *(asyncio.create_task(one) for one in running)]

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Stop the tasks and write the exposures that still wait."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(RedisError, OSError):  # then the report runs out by itself
            await self._releases.leave()
        self._inquiries.close()
        await self._exposures.flush()
        await self._writer.close()
        await self._redis.aclose()
        self._blocking.close()

    async def __is_ready__(self) -> bool:
        if self._releases.current is None:
            raise HTTPException(503, NO_RELEASE)
        if overdue := self._pulse.overdue():
            raise HTTPException(503, "\n".join(overdue))
        return True


Endcap.add_asgi_middleware(Direct, own=app)  # type: ignore[attr-defined]  # the decorator's


def _online_features(url: str, ids: list[str], space: str) -> Features:
    return OnlineFeatures(url, ids, space, load("newborns", NewbornParams).most)


async def _nothing() -> None:
    """Nothing is explored."""


async def _every(seconds: float, name: str, job: Job, pulse: Pulse) -> None:
    """Run `job` for ever, `seconds` apart; a failure is logged when it begins and when it ends."""
    works = True
    while True:
        await asyncio.sleep(seconds)
        works = await _attempt(name, job, pulse, tell=works)


async def _attempt(name: str, job: Job, pulse: Pulse, tell: bool = True) -> bool:
    try:
        await job()
        pulse.beat(name)
    except Exception as error:
        pulse.missed(name, error)
        if tell:
            log.error("%s failed and is tried again: %s", name, error, exc_info=error)
        return False
    if not tell:
        log.warning("%s works again", name)
    return True
