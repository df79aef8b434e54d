"""Rules over the running service: live in every worker within a second, none failed, none mixed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson
import pytest
from load import Connections
from shops.service import Service, running_service
from shops.storefront import SECRET_KEY

from serving.beside.tryout import PAIRS
from serving.live.exposures import SERVED
from serving.release.state import EXPOSURES, Act
from serving.rules import published
from serving.rules.document import parse

HERO = {"surface": "homepage_hero", "session_id": "s1"}
RATE, EACH_S, CONNECTIONS = 300, 2.5, 40
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


class Turns(Connections):
    """Each connection in its turn, so that every worker is asked all the time."""

    async def _open(self) -> Any:
        self._idle.sort(key=lambda one: -one[0])  # the last is taken
        return await super()._open()


class Asked(NamedTuple):
    """One question: when it was sent and answered, seconds on the same clock, and what came."""

    sent: float
    answered: float
    status: int
    items: list[dict[str, Any]]


async def asked(service: Service, sets: Sequence[tuple[str, str]]) -> tuple[list[Asked], list[float]]:
    """RATE questions a second, whatever the answers take, while one set after the other is published."""
    pool, found, published_at = Turns(*service.url[7:].split(":")), list[Asked](), list[float]()  # type: ignore[arg-type]

    async def one(number: int) -> None:
        sent, body = time.monotonic(), orjson.dumps(HERO | {"session_id": f"s{number % 50}"})
        status, text = await pool.ask("/v1/recommend", body, SECRET_KEY)
        found.append(Asked(sent, time.monotonic(), status, orjson.loads(text).get("items", [])))

    async def publishing() -> None:
        for pinned in sets:
            await asyncio.sleep(EACH_S)
            published_at.append(time.monotonic())
            await asyncio.to_thread(publish, service, pinning(*pinned))

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))
    beside, tasks, began = asyncio.create_task(publishing()), list[asyncio.Task[None]](), time.monotonic()
    for number in range(round(RATE * EACH_S * (len(sets) + 1))):
        await asyncio.sleep(max(began + number / RATE - time.monotonic(), 0))
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(beside, *tasks)
    pool.close()
    return found, published_at


def test_a_set_published_at_300_questions_a_second_is_in_every_worker_within_a_second(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(service.workers()) == 2
    sets = [("item-1", "item-2"), ("item-3", "item-4"), ("item-5", "item-6")]
    found, published_at = asyncio.run(asked(service, sets))
    assert Counter(one.status for one in found) == {200: len(found)}
    shown = [(one, tuple(item["item_id"] for item in one.items[:2])) for one in found]
    slowest = max(one.answered - one.sent for one in found)  # what the machine itself delays
    with capsys.disabled():
        print(f"\n{len(found):,} answers at {RATE}/s, the slowest after {slowest * 1000:.0f} ms")
    ends = [*published_at[1:], float("inf")]
    for pinned, since, until in zip(sets, published_at, ends, strict=True):
        now = [(one, head) for one, head in shown if since < one.sent < until - slowest]
        late = max((one.sent - since for one, head in now if head != pinned), default=0.0)
        with capsys.disabled():
            print(f"the rules before answered a question of {late * 1000:.0f} ms after")
        assert late < 1.0 + slowest
        assert any(head == pinned for _, head in now)
    for one, head in shown:
        assert len({item["item_id"] for item in one.items}) == 12
        if rule := one.items[0].get("rule"):
            assert one.items[1]["rule"] == rule == f"to-{head[0]}"  # of one set, not of two
            assert "item-0" not in [item["item_id"] for item in one.items]


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
