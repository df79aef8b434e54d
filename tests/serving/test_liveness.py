"""Nothing stands still in silence: a Redis that swallows bytes, is emptied, or a task that dies are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from shops.black_hole import BlackHole
from shops.service import Service, running_service
from shops.storefront import HERO, act, release_of
from shops.stream import PARTITIONS

from feature_repo.eventlog.keys import stream_keys
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.online import changes
from feature_repo.online.rows import OnlineView, read_rows, write_newer
from feature_repo.params import load
from serving.live.pulse import Liveness, Pulse
from serving.release import state
from serving.service import _every

pytestmark = pytest.mark.fault
LIMIT_S = 4.0
THINGS = (
    "release",
    "items",
    "health",
    "exposures",
    "lag",
    "disk",
    "report",
    "rules",
    "flags",
    "shadow",
    "vigil",
    "rails",
    "signing",
    "erased",
    "explore",
    "understudy",
    "interleaver",
    "ages",
)
PATIENCE_S = 60


@pytest.fixture(scope="module")
def wire() -> Iterator[list[BlackHole]]:
    opened: list[BlackHole] = []
    yield opened
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, wire: list[BlackHole]) -> Iterator[Service]:
    def through(port: int) -> int:
        wire.append(BlackHole(port))
        return wire[0].port

    limits = dict.fromkeys((*THINGS, "consumers"), LIMIT_S)
    folder = tmp_path_factory.mktemp("liveness")
    patient = {"traffic_timeout_s": float(PATIENCE_S)}  # a machine that stalls for a second answers late
    with running_service(folder, patient, liveness=limits, seen_at=through) as found:
        with found.redis() as redis:
            changes.mark(redis)
        yield found


def readiness(service: Service) -> httpx.Response:
    return httpx.get(f"{service.url}/readyz", timeout=10)


def ages(service: Service) -> dict[str, float]:
    text = httpx.get(f"{service.url}/metrics", timeout=10).text
    return {
        sample.labels["thing"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "endcap_age_seconds"
    }


def until(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def answer(service: Service) -> dict[str, Any]:
    found = httpx.post(f"{service.url}/v1/recommend", json=HERO, timeout=10)
    assert found.status_code == 200, f"{found.status_code} {found.text}"
    told: dict[str, Any] = found.json()
    return told


def price(service: Service, item: str, value: float) -> None:
    """As the next catalogue says it."""
    view = OnlineView(ITEM_CATALOGUE)
    with service.redis() as redis:
        (held,) = read_rows(redis, view, [item])
        assert held is not None
        assert write_newer(redis, view, [(item, held[0], {**held[1], "price": value, "stock": 0})]) == [item]
        redis.incr(changes.CATALOGUE)


def test_a_service_that_is_well_tells_the_age_of_every_thing(service: Service) -> None:
    until(lambda: set(ages(service)) == {*THINGS, "consumers"} and max(ages(service).values()) < LIMIT_S)
    assert readiness(service).status_code == 200


def test_a_connection_that_swallows_everything_is_told_and_ends(
    service: Service, wire: list[BlackHole]
) -> None:
    sold = answer(service)["items"][0]["item_id"]
    wire[0].swallow.set()
    try:
        told = until(lambda: _told(service, "items: ", "release: ", "lag: "))  # one after the other
        assert "s are allowed" in told and "TimeoutError" in told
        until(lambda: ages(service)["items"] > LIMIT_S)
        took = []
        for _ in range(20):
            began = time.monotonic()
            assert len(answer(service)["items"]) == 12
            took.append(time.monotonic() - began)
        told = took, service.log.read_text()[-3000:]
        assert sorted(took)[10] < 1.0, told  # else Bento would have cut every other one
        price(service, sold, 1.5)
    finally:
        wire[0].swallow.clear()
    until(lambda: readiness(service).status_code == 200)
    until(lambda: sold not in {item["item_id"] for item in answer(service)["items"]})


def test_a_stream_that_stopped_is_told_with_its_delay_and_lists_are_live_and_full(service: Service) -> None:
    until(lambda: readiness(service).status_code == 200)
    event = {"type": "product_viewed", "session_id": "s8", "item_id": "item-1"}
    posted = httpx.post(f"{service.url}/v1/events", json={"events": [event]}, timeout=10)
    assert posted.status_code == 202  # kept, though nobody takes it
    try:
        told = until(lambda: _told(service, "consumers: "))
        assert "s are allowed" in told and "`endcap up stream`" in told
        found = [answer(service) for _ in range(20)]
        assert {(one["served_from"], one["degraded"], len(one["items"])) for one in found} == {
            ("live", None, 12)
        }
    finally:
        with service.redis() as redis:
            redis.delete(*stream_keys(PARTITIONS))
    until(lambda: readiness(service).status_code == 200)


def test_an_emptied_redis_is_told_with_the_command_that_mends_it(service: Service) -> None:
    until(lambda: readiness(service).status_code == 200)
    stocked = answer(service)["items"]
    with service.redis() as redis:
        kept = {key: redis.dump(key) for key in redis.scan_iter()}
        redis.flushall()
        told = until(lambda: _told(service, "Redis is empty, or another one than before"))
        assert "`endcap restore`" in told
        assert [item["item_id"] for item in answer(service)["items"]] == [item["item_id"] for item in stocked]
        event = {"type": "product_viewed", "session_id": "s9", "item_id": "item-1"}
        posted = httpx.post(f"{service.url}/v1/events", json={"events": [event]}, timeout=10)
        assert posted.status_code == 202  # the door needs no release
        redis.flushall()
        for key, value in kept.items():
            assert value is not None
            redis.restore(key, 0, value)
    until(lambda: readiness(service).status_code == 200)


def test_without_a_release_readiness_says_what_to_do(service: Service) -> None:
    until(lambda: readiness(service).status_code == 200)
    with service.redis() as redis:
        kept = redis.dump(state.ROLLOUT)
        redis.delete(state.ROLLOUT)
        (worker,) = service.workers()
        worker.kill()
        told = until(lambda: _told(service, "no release is loaded"))
        assert "`endcap promote` in a new shop" in told and "`endcap restore`" in told
        state.install(redis, release_of(service.home, service.bundle), act())
        service.wait_until_ready()
        assert kept


def _told(service: Service, *words: str) -> str:
    try:
        found = readiness(service)
    except httpx.TransportError:  # its socket is the killed one's still
        return ""
    told = found.status_code == 503 and all(one in found.text for one in words)
    return found.text if told else ""


def limits() -> Liveness:
    return load("liveness", Liveness)


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("way", ["cancelled", "raised", "stuck"])
def test_a_task_that_stops_is_overdue_whatever_stopped_it(way: str) -> None:
    clock = Clock()
    pulse = Pulse(limits(), clock)
    beats = 0

    async def job() -> None:
        nonlocal beats
        beats += 1
        if beats > 3 and way == "raised":
            raise ValueError("a row of another kind")
        if beats > 3 and way == "stuck":
            await asyncio.Event().wait()

    async def scene() -> None:
        task = asyncio.create_task(_every(0, "items", job, pulse))
        while beats < 4:
            await asyncio.sleep(0)
        if way == "cancelled":
            task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert pulse.overdue() == []
        clock.now += limits().items + 1
        for _ in range(5):
            await asyncio.sleep(0)
        told = [one for one in pulse.overdue() if one.startswith("items: 61 s old, at most liveness.items")]
        assert told and (way != "raised" or "(ValueError: a row of another kind)" in told[0])
        task.cancel()

    asyncio.run(scene())


def test_a_thing_without_a_limit_has_no_heartbeat() -> None:
    with pytest.raises(KeyError):
        Pulse(limits()).beat("something new")


def test_a_measured_age_goes_on_growing_when_nobody_measures() -> None:
    clock = Clock()
    pulse = Pulse(limits(), clock)
    pulse.beat("consumers", 250)
    assert pulse.ages()["consumers"] == 250
    clock.now += 51
    assert pulse.overdue()[0].startswith("consumers: 301 s old, at most liveness.consumers = 300 s")
