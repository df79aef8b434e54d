"""A running service asked for too much, or with a slow Redis: every list is full, and it recovers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from overload import closed, recovery
from shops.service import Service, running_service
from shops.slow_wire import SlowWire
from shops.storefront import HERO

from feature_repo.params import load
from serving.params import Serving

pytestmark = pytest.mark.fault
PARAMS = load("serving", Serving)
PATIENT = {"traffic_timeout_s": 60.0}  # a machine that stalls for a second answers late
CROWD, SECONDS = 48, 3.0
AGAIN_S = 2.0


@pytest.fixture(scope="module")
def wires() -> Iterator[list[SlowWire]]:
    opened: list[SlowWire] = []
    yield opened
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, wires: list[SlowWire]) -> Iterator[Service]:
    def through(port: int) -> int:
        wires.append(SlowWire(port))
        return wires[0].port

    with running_service(tmp_path_factory.mktemp("overload"), PATIENT, seen_at=through) as found:
        yield found


def ask(service: Service) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.post(f"{service.url}/v1/recommend", json=HERO, timeout=15).json()
    return answer


def healthy(service: Service) -> None:
    deadline = time.monotonic() + 30
    while ask(service)["degraded"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def waited(answers: list[dict[str, Any]]) -> int:
    """How many took the whole deadline of a feature read."""
    return sum(answer["took_ms"] >= PARAMS.feature_deadline_ms for answer in answers)


def allowed(began: float) -> float:
    """After the first misses one try in `breaker_ms`, whatever a busy machine adds to an answer."""
    return PARAMS.breaker_misses + 1 + (time.monotonic() - began) / (PARAMS.breaker_ms / 1000)


def test_asked_for_too_much_it_steps_down_and_is_itself_again(service: Service) -> None:
    healthy(service)
    calm = asyncio.run(closed(service.url, 1, SECONDS / 2))
    crowd = asyncio.run(closed(service.url, CROWD, SECONDS))
    again_s = asyncio.run(recovery(service.url))
    assert not calm.failed and not crowd.failed  # every list was full
    assert set(calm.rungs) == {"live"}
    assert crowd.rungs["fallback"] > crowd.rungs["live"]
    # What is shed is cheap: the crowd waits less than it would in a queue of live answers.
    assert crowd.quantile(0.5) < CROWD * calm.quantile(0.5) / 2
    assert len(crowd.latency) / crowd.seconds > 1.5 * len(calm.latency) / calm.seconds
    assert again_s < AGAIN_S
    metrics = httpx.get(f"{service.url}/metrics").text
    assert 'endcap_degraded_total{reason="overloaded"}' in metrics
    assert 'endcap_rung_seconds{rung="bestsellers"}' in metrics


def test_with_redis_a_tenth_of_a_second_late_lists_are_full_and_do_not_wait(
    service: Service, wires: list[SlowWire]
) -> None:
    healthy(service)
    wires[0].delay_s = 0.1
    began = time.monotonic()
    try:
        answers = [ask(service) for _ in range(20)]
    finally:
        wires[0].delay_s = 0.0
    assert {len(answer["items"]) for answer in answers} == {12}
    assert {answer["degraded"] for answer in answers[1:]} == {"features_unavailable"}
    assert waited(answers) <= allowed(began)
    healthy(service)


def test_with_redis_hung_in_the_middle_of_an_answer_lists_are_full_and_it_recovers(
    service: Service, wires: list[SlowWire]
) -> None:
    healthy(service)
    wires[0].choke.set()
    began = time.monotonic()
    try:
        answers = [ask(service) for _ in range(20)]
    finally:
        wires[0].choke.clear()
    assert {len(answer["items"]) for answer in answers} == {12}
    assert {answer["degraded"] for answer in answers} == {"features_unavailable"}
    assert waited(answers) <= allowed(began)
    healthy(service)
