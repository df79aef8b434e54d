"""The storefront's routes in this process: real bundle, real Redis, rows that the test sets itself.

What Feast reads is tested elsewhere; here the rows must be at hand, late, or broken on purpose.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import redis
import redis.asyncio
from prometheus_client import REGISTRY
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry
from shops import tiny_bundle
from starlette.testclient import TestClient

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.eventlog.keys import StreamParams
from feature_repo.eventlog.redis_writer import RedisWriter
from feature_repo.features.stored import SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds.fold import Event
from feature_repo.online.connection import wires
from feature_repo.params import load
from serving.access.counting import Verdicts
from serving.access.credentials import KeyRules, Keys
from serving.access.policy import Access
from serving.access.signatures import Signatures
from serving.access.tolls import TollGate
from serving.cascade.queueing import Admission, Cascade
from serving.compat.doors import routes as compat_routes
from serving.explore.explorer import Explorer
from serving.explore.offer import Explore
from serving.http.api import Desk, build_app
from serving.http.ingress import Ingress
from serving.http.inquiry import Inquiries
from serving.http.origins import Cors
from serving.live.exposures import ExposureLog
from serving.live.storefront import Storefront
from serving.live.wire import Wire
from serving.params import Serving
from serving.payloads.terms import Terms
from serving.rails.rail import RailParams
from serving.rails.shared import SharedRails
from serving.rails.shopper_rails import ShopperRails
from serving.release import state
from serving.release.health import ArmHealth
from serving.release.loaded import Ready, Releases
from serving.rules.rulebook import Rulebook
from serving.types import VisitorRows

PAGE = "https://shop.example"  # an origin that is allowed
CATALOGUE_KEY, SECRET_KEY = "the-catalogue-key", "the-secret-key-of-servers"
SECRET = {"authorization": f"Bearer {SECRET_KEY}"}
HERO: dict[str, Any] = {"surface": "homepage_hero", "user_id": "u1", "session_id": "s1"}


@dataclass
class StillFeatures:
    """serving.release.loaded.Features over dicts; `delay_s` and `error` make it slow or broken."""

    matrix: ItemMatrix
    users: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    sessions: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    delay_s: float = 0.0
    error: Exception | None = None
    reads: int = 0

    async def read(
        self, user_id: str | None, session_id: str | None, now: int, charge: bytes | None = None
    ) -> VisitorRows:
        self.reads += 1
        if self.error:
            raise self.error
        await asyncio.sleep(self.delay_s)
        user, session = self.users.get(user_id or ""), self.sessions.get(session_id or "")
        return VisitorRows(user, session, user["at"] if user else 0, session["at"] if session else 0)

    def load_items(self) -> None:
        pass

    def refresh(self, ready: Ready) -> int:
        return 0


@dataclass
class Shop:
    """The running app and everything a test may turn."""

    client: TestClient
    features: StillFeatures
    releases: Releases
    storefront: Storefront
    exposures: ExposureLog
    health: ArmHealth
    redis: redis.Redis
    home: Path
    shared: SharedRails
    rulebook: Rulebook

    def post(self, path: str, body: Any) -> Any:
        """The response to a JSON body, or to raw bytes."""
        if isinstance(body, bytes):
            return self.client.post(path, content=body)
        secret = isinstance(body, dict) and (body.get("debug") or body.get("as_of"))
        return self.client.post(path, json=body, headers=SECRET if secret else None)

    def run(self, job: Any, *args: Any) -> Any:
        """Call a coroutine function on the app's event loop."""
        assert self.client.portal is not None
        return self.client.portal.call(job, *args)


def ask(shop: Shop, path: str = "/v1/recommend", **fields: Any) -> dict[str, Any]:
    """The answer to HERO with `fields` changed."""
    response = shop.post(path, {**HERO, **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def give_keys(
    shop: Shop, required: bool = False, origins: Any = None, user_proof: bool = False, **held: Any
) -> None:
    """Have these keys and no others: kind -> label -> keys."""
    keys = Keys(KeyRules(required, origins or {}, user_proof), held)
    app = shop.client.app
    app.state.desk = replace(app.state.desk, keys=keys)  # type: ignore[attr-defined]


def items(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def metric(name: str, **labels: str) -> float:
    """A sample of this process' Prometheus registry, 0 before the first."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def make_home(folder: Path, n: int = 60) -> tuple[Path, Path]:
    """A project folder with params.yaml and one bundle: (home, bundle)."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(tiny_bundle.PARAMS, folder / "params.yaml")
    return folder, tiny_bundle.make(folder, n)


def release_of(home: Path, path: Path) -> state.Release:
    return state.Release(path.name, str(path.relative_to(home)))


def act(why: str = "test") -> state.Act:
    return state.Act("tester", why, time.time_ns() // 1000)


def session_row(*events: tuple[str, str], session: str = "s1") -> dict[str, Any]:
    """The stored row after (type, item) events, one second apart, the last one a second ago."""
    fold, start = SESSION_CONTEXT.new(), time.time_ns() // 1000 - len(events) * 1_000_000
    for at, (kind, item) in enumerate(events):
        SESSION_CONTEXT.step(fold, Event(start + at * 1_000_000, kind, None, session, item))
    return SESSION_CONTEXT.row(fold)


def user_row(*events: tuple[str, str], session: str = "s0") -> dict[str, Any]:
    fold, start = USER_HISTORY.new(), time.time_ns() // 1000 - 86_400_000_000
    for at, (kind, item) in enumerate(events):
        USER_HISTORY.step(fold, Event(start + at * 1_000_000, kind, "u1", session, item))
    return USER_HISTORY.row(fold)


@contextmanager
def open_shop(
    home: Path,
    bundle: Path,
    url: str,
    replay: bool = False,
    holdout: float = 0.0,
    cascade: Mapping[str, float] | None = None,
    explore: Explore | None = None,
) -> Iterator[Shop]:
    """The routes over the Redis at `url`, `bundle` as champion, with limits of `cascade` changed."""
    params = load("serving", Serving)
    blocking = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=2)
    background = redis.asyncio.Redis.from_url(url, retry=AsyncRetry(NoBackoff(), 0), socket_timeout=2)
    state.install(blocking, release_of(home, bundle), act())
    features = StillFeatures(tiny_bundle.matrix(pq.read_table(bundle / "catalogue.parquet")))
    rulebook = Rulebook(blocking, lambda: releases.snapshots())
    releases = Releases(blocking, lambda ids, space: features, ready=rulebook.ready)
    exposures = ExposureLog(background, params)
    health = ArmHealth(blocking)
    explorer = Explorer(blocking, explore) if explore else None
    access = load("access", Access)
    signatures = Signatures(access.signing)
    rails = load("rails", RailParams)
    shared = SharedRails(blocking, rails)
    storefront = Storefront(
        *(releases, background, exposures, health, params, holdout, replay),
        admission=Admission(replace(load("cascade", Cascade), **(cascade or {}))),
        rails=ShopperRails(Wire(wires(url), 2.0).ask, rails),
        shared=shared,
        rulebook=rulebook,
        signatures=signatures,
        explorer=explorer,
    )
    cors = replace(load("cors", Cors), origins=(PAGE,))
    app = build_app(cors, compat_routes(load("compat", Terms)))
    writer = RedisWriter(background, load("stream", StreamParams), params.seen_ttl_s)
    verdicts = Verdicts(Wire(wires(url), 2.0).ask, signatures, access.counting)
    ingress = Ingress(background, writer, params, replay=replay, verdicts=verdicts)
    keys = Keys(KeyRules(False, {}), {"secret": {"": (SECRET_KEY,)}, "catalogue": {"": (CATALOGUE_KEY,)}})
    inquiries = Inquiries(storefront, params.explain_timeout_s, params.explain_waiting)
    app.state.desk = Desk(storefront, ingress, params, keys, TollGate(access.rates), inquiries)
    with TestClient(app) as client:
        shop = Shop(
            client, features, releases, storefront, exposures, health, blocking, home, shared, rulebook
        )
        shop.run(releases.poll)
        if explorer:
            shop.run(explorer.poll)
        yield shop
        shop.run(background.aclose)
    blocking.close()
