"""A running shop, its parts processes of their own: what comes into the catalogue stands in lists."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from shops import tiny_bundle
from shops.newborn import arrive, leave
from shops.service import Service, running_service, stop
from shops.storefront import SECRET, act, release_of

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.features.stored import ITEM_ACTIVITY
from feature_repo.folds.fold import Event
from feature_repo.online import changes, newborns
from feature_repo.online.rows import OnlineView, write_newer
from serving.release import bundle, state

SOON_S = 10.0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("newborn")) as found, found.redis() as redis:
        changes.mark(redis)
        yield found


@contextmanager
def embedding(shop: Service) -> Iterator[psutil.Popen]:
    """`endcap embed`, at work."""
    env = {**os.environ, "ENDCAP_HOME": str(shop.home), "REDIS_URL": shop.redis_url, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipelines", "embed"]
    with shop.log.open("ab") as out, shop.redis() as redis:
        redis.delete(newborns.EMBED)
        process = psutil.Popen(command, env=env, cwd=shop.home, stdout=out, stderr=subprocess.STDOUT)
        try:
            until(lambda: newborns.age_s(redis) is not None, 60)
            yield process
        finally:
            stop(process)


def until(true: Callable[[], Any], seconds: float = SOON_S) -> float:
    """Seconds until it was."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - began


def listed(shop: Service, **asked: Any) -> dict[str, str]:
    """Item -> the source that brought it, of a list as long as may be."""
    body = {"surface": "homepage_hero", "session_id": "s1", "limit": 100, "debug": True, **asked}
    with shop.client() as client:
        answer = client.post("/v1/recommend", json=body, headers=SECRET).json()
    assert answer["served_from"] == "live" and answer["degraded"] is None
    assert len({slot["item_id"] for slot in answer["items"]}) == len(answer["items"])
    return {slot["item_id"]: slot["source"] for slot in answer["items"]}


def test_a_new_item_is_recommendable_soon_and_goes_on_through_kills_and_promotions(shop: Service) -> None:
    with shop.redis() as redis:
        with embedding(shop) as process:
            arrive(redis, "new é/1")
            assert until(lambda: "new é/1" in listed(shop)) < SOON_S
            assert listed(shop, items=["new é/1"]).keys().isdisjoint({"new é/1"}), "a page's own item"
            process.kill()
            process.wait()
        many = [f"new {i:02d}" for i in range(40)]
        arrive(redis, *many)  # nobody looks: the service answers on as it was
        assert len(listed(shop)) > 50 and not {*many} & listed(shop).keys()
        with embedding(shop):
            until(lambda: {*many} <= listed(shop).keys())
            other = tiny_bundle.make(shop.home, seed=8)
            state.install(redis, release_of(shop.home, other), act())
            with shop.client() as client:
                ask = {"surface": "homepage_hero", "session_id": "s1"}
                until(lambda: client.post("/v1/recommend", json=ask).json()["bundle"] == other.name, 60)
            until(lambda: {"new é/1", *many} <= listed(shop).keys())
            assert newborns.count(redis, bundle.verify(other)["space"]) == 41
            leave(redis, many[:20])
            until(lambda: not {*many[:20]} & listed(shop).keys())
            assert {*many[20:]} <= listed(shop).keys()
            viewed(redis, many[30])
            until(lambda: views(shop, many[30]) > 900)
            assert views(shop, many[31]) == 0
            arrive(redis, many[30], stock=0)
            until(lambda: many[30] not in listed(shop))


def viewed(redis: Any, item: str) -> None:
    """A thousand views, as the consumers' fold writes them."""
    fold, now = ITEM_ACTIVITY.new(), time.time_ns() // 1000
    for i in range(1000):
        ITEM_ACTIVITY.step(fold, Event(now - i, "product_viewed", None, f"s{i}", item))
    write_newer(redis, OnlineView(ITEM_ACTIVITY), [(item, now, ITEM_ACTIVITY.row(fold))])
    changes.announce(redis, [item])


def views(shop: Service, item: str) -> float:
    """What the ranker is told of it."""
    body = {"surface": "homepage_hero", "session_id": "s1", "limit": 100, "debug": True}
    with shop.client() as client:
        told = client.post("/v1/recommend", json=body, headers=SECRET).json()["debug"]["features"][item]
    value: float = told[COLUMNS.index("views_24h")]
    return value
