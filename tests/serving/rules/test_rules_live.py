"""Rules over the running service: live in every worker within a second, none failed, none mixed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
from shops.service import Service, running_service
from shops.storefront import SECRET

from serving.beside.tryout import PAIRS
from serving.live.exposures import SERVED
from serving.release.state import EXPOSURES, Act
from serving.rules import published
from serving.rules.document import parse

HERO = {"surface": "homepage_hero", "session_id": "s1"}
HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    changed = {"workers": 2, "rules_shadow_share": 1.0, "served_share": 1.0}
    with running_service(tmp_path_factory.mktemp("rules"), changed) as found:
        yield found


def pinning(*items: str) -> bytes:
    pin = {"pin": {"items": list(items), "slots": list(range(len(items)))}}
    block = {"block": {"where": {"item_id": ["item-0"]}}}
    return orjson.dumps(
        {"rules": [{"id": f"to-{items[0]}", "why": HOSTILE, "do": pin}, {"id": "b", "do": block}]}
    )


def publish(service: Service, text: bytes) -> int:
    with service.redis() as redis:
        act = Act("tester", "test", time.time_ns() // 1000)
        return published.publish(redis, parse(text), act, published.read(redis)).version


def exposures(service: Service) -> list[dict[str, Any]]:
    with service.redis() as redis:
        return [orjson.loads(fields[b"exposure"]) for _, fields in redis.xrange(EXPOSURES)]


def test_a_set_published_under_load_is_in_every_worker_within_a_second(service: Service) -> None:
    stop, answers, failed = threading.Event(), list[tuple[float, dict[str, Any]]](), list[str]()

    def asks(name: int) -> None:
        sent = SECRET | {"Connection": "close"}  # at any rate; another connection and worker each time
        with httpx.Client(base_url=service.url, timeout=5, headers=sent) as client:
            while not stop.is_set():
                try:
                    reply = client.post("/v1/recommend", json=HERO | {"session_id": f"s{name}"})
                    answers.append((time.monotonic(), reply.raise_for_status().json()))
                except httpx.HTTPError as error:
                    failed.append(repr(error))

    threads = [threading.Thread(target=asks, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    published_at = {}
    for pinned in (("item-1", "item-2"), ("item-3", "item-4"), ("item-5", "item-6")):
        time.sleep(2.0)
        published_at[pinned] = time.monotonic()
        publish(service, pinning(*pinned))
    time.sleep(2.0)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(answers) > 100
    heads = [(at, tuple(item["item_id"] for item in answer["items"][:2])) for at, answer in answers]
    for pinned, since in published_at.items():
        of_set = [head for at, head in heads if since + 1.0 < at < since + 1.9]
        assert of_set and set(of_set) == {pinned}
    for _, answer in answers:
        items = [item["item_id"] for item in answer["items"]]
        assert len(set(items)) == 12
        if rule := answer["items"][0].get("rule"):
            assert answer["items"][1]["rule"] == rule == f"to-{items[0]}"
            assert "item-0" not in items


def test_each_exposure_names_one_version_and_the_rule_of_each_slot(service: Service) -> None:
    version = publish(service, pinning("item-7", "item-8"))
    time.sleep(1.0)
    with service.client() as client:
        answer = client.post("/v1/recommend", json=HERO).json()
    time.sleep(0.3)
    logged = next(one for one in exposures(service) if one["request_id"] == answer["request_id"])
    assert logged["rules"] == version
    assert logged["by_rule"] == ["to-item-7"] * 2 + [None] * 10
    versions = Counter(one["rules"] for one in exposures(service))
    assert set(versions) <= set(range(version + 1))
    with service.redis() as redis:
        metas = [orjson.loads(fields[b"meta"]) for _, fields in redis.xrange(SERVED)]
    meta = next(one for one in metas if one["request_id"] == answer["request_id"])
    assert meta["pinned"] == ["item-7", "item-8"]
    assert meta["judged"]["shown"] == logged["items"]


def test_a_shadow_is_logged_beside_what_was_shown_and_never_shown(service: Service) -> None:
    publish(service, b'{"rules": []}')
    with service.redis() as redis:
        act = Act("tester", "test", time.time_ns() // 1000)
        found = published.set_shadow(redis, parse(pinning("item-11", "item-12")), act, published.read(redis))
        time.sleep(1.0)
        with service.client() as client:
            answer = client.post("/v1/recommend", json=HERO).json()
        assert not any("rule" in item for item in answer["items"])
        deadline = time.monotonic() + 5
        while not (entries := redis.xrange(PAIRS)) and time.monotonic() < deadline:
            time.sleep(0.05)
        pair = orjson.loads(entries[-1][1][b"pair"])
        published.set_shadow(redis, None, act, published.read(redis))
    assert (pair["request_id"], pair["draft"]) == (answer["request_id"], found.shadow_name)
    assert [item for item, _ in pair["shown"]] == [item["item_id"] for item in answer["items"]]
    assert pair["shadow"][:2] == [["item-11", "to-item-11"], ["item-12", "to-item-11"]]


def test_a_revert_brings_the_lists_back(service: Service) -> None:
    publish(service, b'{"rules": []}')
    time.sleep(1.0)
    with service.client() as client:
        before = [item["item_id"] for item in client.post("/v1/recommend", json=HERO).json()["items"]]
        publish(service, pinning("item-20", "item-21"))
        time.sleep(1.0)
        during = [item["item_id"] for item in client.post("/v1/recommend", json=HERO).json()["items"]]
        with service.redis() as redis:
            published.revert(redis, Act("tester", "back", time.time_ns() // 1000), published.read(redis))
        time.sleep(1.0)
        after = [item["item_id"] for item in client.post("/v1/recommend", json=HERO).json()["items"]]
    assert during[:2] == ["item-20", "item-21"]
    assert after[:11] == before[:11]  # the last may be the long tail's
