"""The BentoML service: start the parts, keep the background tasks running, mount the routes.

    bentoml serve serving.service:Endcap        (`endcap serve` adds the settings)

The routes are a mounted ASGI app: p50 of a bare endpoint 0.12 ms, against 0.64 ms for a Bento API. Bento's
own metrics are off: they label by raw path, so any client could fill the memory. /metrics is ours.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from feature_repo.quiet import hush

hush()

import bentoml  # noqa: E402  (after hush: libraries read their switches at import)
import redis  # noqa: E402
import redis.asyncio  # noqa: E402
from redis.asyncio.retry import Retry as AsyncRetry  # noqa: E402
from redis.backoff import NoBackoff  # noqa: E402

from feature_repo.eventlog.keys import StreamParams  # noqa: E402
from feature_repo.eventlog.open import open_writer  # noqa: E402
from feature_repo.online.connection import ONCE  # noqa: E402
from feature_repo.params import load  # noqa: E402
from feature_repo.ports import redis_url  # noqa: E402
from serving.http.api import Desk, build_app  # noqa: E402
from serving.http.ingress import Ingress  # noqa: E402
from serving.live.exposures import ExposureLog  # noqa: E402
from serving.live.storefront import Storefront  # noqa: E402
from serving.params import Serving, replaying  # noqa: E402
from serving.release.health import ArmHealth  # noqa: E402
from serving.release.loaded import Features, Releases  # noqa: E402
from serving.release.router import RouterParams  # noqa: E402
from serving.release.vigil import Vigil  # noqa: E402

PARAMS = load("serving", Serving)
HEALTH_S = LAG_S = 1.0
SOCKET_TIMEOUT_S = 2.0
log = logging.getLogger(__name__)
app = build_app()


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
        url = redis_url()
        # No retries inside a request: the deadline is short and the ladder is the answer to a failure.
        options: Any = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), SOCKET_TIMEOUT_S)
        self._redis = redis.asyncio.Redis.from_url(url, retry=AsyncRetry(NoBackoff(), 0), **options)
        self._blocking = redis.Redis.from_url(url, retry=ONCE, **options)
        self._releases = Releases(self._blocking, lambda ids: _online_features(url, ids))
        self._exposures = ExposureLog(self._redis, PARAMS)
        health = ArmHealth(self._blocking)
        holdout = load("router", RouterParams).holdout_share
        vigil = Vigil(self._blocking)
        storefront = Storefront(
            *(self._releases, self._redis, self._exposures, health, PARAMS, holdout, replaying()),
            guarded=vigil.guarded,
        )
        self._writer = open_writer(self._redis, load("stream", StreamParams), PARAMS.seen_ttl_s)
        ingress = Ingress(self._redis, self._writer, PARAMS)
        app.state.desk = Desk(storefront, ingress, PARAMS)
        await _attempt("first poll", self._releases.poll)
        self._tasks = [
            asyncio.create_task(_every(PARAMS.poll_s, "poll", self._releases.poll)),
            asyncio.create_task(_every(PARAMS.poll_s, "vigil", vigil.look)),
            asyncio.create_task(_every(PARAMS.refresh_s, "refresh", self._releases.refresh)),
            asyncio.create_task(_every(HEALTH_S, "health", health.publish)),
            asyncio.create_task(_every(LAG_S, "lag", ingress.publish_lag)),
            asyncio.create_task(self._exposures.run()),
        ]

    @bentoml.on_shutdown
    async def close(self) -> None:
        """Stop the tasks and write the exposures that still wait."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._exposures.flush()
        await self._writer.close()
        await self._redis.aclose()
        self._blocking.close()

    async def __is_ready__(self) -> bool:
        return self._releases.current is not None


def _online_features(url: str, ids: list[str]) -> Features:
    from serving.live.online_features import OnlineFeatures  # imports Feast: 4 s, in the loading thread

    return OnlineFeatures(url, ids)


async def _every(seconds: float, name: str, job: Callable[[], Awaitable[None]]) -> None:
    """Run `job` for ever, `seconds` apart; a failure is logged when it begins and when it ends."""
    works = True
    while True:
        await asyncio.sleep(seconds)
        works = await _attempt(name, job, tell=works)


async def _attempt(name: str, job: Callable[[], Awaitable[None]], tell: bool = True) -> bool:
    try:
        await job()
    except Exception as error:
        if tell:
            log.error("%s failed and is tried again: %s", name, error, exc_info=error)
        return False
    if not tell:
        log.warning("%s works again", name)
    return True
