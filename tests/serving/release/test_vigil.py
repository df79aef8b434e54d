"""A canary without a living guard steps back: one worker changes the state, all give the champion."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from prometheus_client import REGISTRY
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from shops.service import free_port

from serving.release import looks
from serving.release import state as control
from serving.release.looks import GUARD, beat, guard_age_s
from serving.release.state import Act, Release, RolloutState
from serving.release.vigil import Vigil

pytestmark = pytest.mark.fault
OLD, NEW = (Release(name, f"data/bundles/{name}") for name in ("old", "new"))
ACT = Act("alice", "test", 1_700_000_000_000_000)
HOUR_US = 3_600_000_000


@dataclass
class Clock:
    """Monotonic seconds that the test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def canary(redis: Redis) -> RolloutState:
    installed = control.install(redis, OLD, ACT)
    return control.start_canary(redis, installed, NEW, 10, "trial", ACT, guard_timeout_s=60.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vigil(redis: Redis, clock: Clock) -> Vigil:
    return Vigil(redis, clock)


def watched(vigil: Vigil, clock: Clock, seconds: int, beating: Redis | None = None) -> None:
    """A look every second, and a beat before it where a guard lives."""
    for _ in range(seconds):
        clock.now += 1
        if beating:
            beat(beating)
        asyncio.run(vigil.look())


def present(redis: Redis) -> RolloutState:
    return control.present(redis)


def test_a_guard_that_falls_silent_ends_the_canary_after_its_time_and_not_before(
    redis: Redis, canary: RolloutState, vigil: Vigil, clock: Clock
) -> None:
    watched(vigil, clock, 200, beating=redis)
    assert present(redis) == canary and vigil.guarded(canary.version)
    watched(vigil, clock, 60)
    assert present(redis) == canary and vigil.guarded(canary.version)
    watched(vigil, clock, 1)
    state = present(redis)
    assert (state.champion, state.challenger, state.percent) == (OLD, None, 0)
    assert not vigil.guarded(canary.version)  # also while the worker still points to the canary
    entry = control.read_audit(redis, count=1)[0]
    assert (entry["who"], entry["what"], entry["why"]) == (
        *("service", "rollback"),
        "no living guard for 61 s",
    )
    assert entry["version"] == state.version
    watched(vigil, clock, 5)
    assert not vigil.guarded(canary.version) and len(control.read_audit(redis)) == 3


def test_a_fresh_canary_and_a_fresh_step_have_their_grace(
    redis: Redis, canary: RolloutState, vigil: Vigil, clock: Clock
) -> None:
    watched(vigil, clock, 50)
    step = control.advance(redis, canary, 50, ACT)
    watched(vigil, clock, 61)  # the first of these looks sees the step
    assert present(redis) == step
    watched(vigil, clock, 1)
    assert present(redis).challenger is None


def test_of_many_workers_one_changes_the_state_and_one_entry_tells_it(
    redis: Redis, redis_url: str, canary: RolloutState, clock: Clock
) -> None:
    workers = [Vigil(Redis.from_url(redis_url), clock) for _ in range(6)]
    for _ in range(21):
        for worker in workers:
            asyncio.run(worker.look())
        clock.now += 3
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda worker: asyncio.run(worker.look()), workers))
    assert present(redis).challenger is None
    audit = control.read_audit(redis)
    assert [entry["what"] for entry in audit] == ["rollback", "start_canary", "install"]
    for worker in workers:
        asyncio.run(worker.look())
        assert not worker.guarded(canary.version)
    assert len(control.read_audit(redis)) == 3


def test_while_redis_is_away_nobody_gets_the_challenger_and_then_the_guard_has_its_time_again(
    redis: Redis, canary: RolloutState, vigil: Vigil, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched(vigil, clock, 10, beating=redis)
    away = Redis(port=free_port(), retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(vigil, "_redis", away)
    for second in range(1, 301):
        clock.now += 1
        with pytest.raises(RedisConnectionError):
            asyncio.run(vigil.look())
        assert vigil.guarded(canary.version) == (second <= 60)
    assert (REGISTRY.get_sample_value("endcap_guard_age_seconds") or 0.0) > 299
    monkeypatch.setattr(vigil, "_redis", redis)
    watched(vigil, clock, 40)
    assert present(redis) == canary and not vigil.guarded(canary.version)  # nobody saw the guard yet
    watched(vigil, clock, 1, beating=redis)
    assert vigil.guarded(canary.version)
    watched(vigil, clock, 61)
    assert present(redis).challenger is None


@pytest.mark.parametrize("jump_us", [-HOUR_US, HOUR_US])
def test_no_jump_of_a_clock_ends_a_canary_or_keeps_it_alive(
    redis: Redis, canary: RolloutState, vigil: Vigil, clock: Clock, jump_us: int
) -> None:
    def jumped() -> None:
        beat(redis)
        redis.hincrby(GUARD, "at_us", jump_us)

    for _ in range(100):  # a guard that beats, dated an hour off
        jumped()
        watched(vigil, clock, 1)
    assert present(redis) == canary and vigil.guarded(canary.version)
    watched(vigil, clock, 61)  # and one that was dated so before it died
    assert present(redis).challenger is None


def test_the_age_is_by_redis_clock_and_never_young_where_that_was_set_back(redis: Redis) -> None:
    assert guard_age_s(redis) is None
    beat(redis)
    age_s = guard_age_s(redis)
    assert age_s is not None and 0 <= age_s < 5
    redis.hincrby(GUARD, "at_us", HOUR_US)
    assert (guard_age_s(redis) or 0.0) > 3000


def test_age_and_alarm_are_metrics(redis: Redis, vigil: Vigil) -> None:
    def metrics() -> tuple[float | None, float | None]:
        asyncio.run(vigil.look())
        names = ("endcap_guard_age_seconds", "endcap_guard_alarm")
        age_s, alarm = (REGISTRY.get_sample_value(name) for name in names)
        return age_s, alarm

    assert math.isnan(metrics()[0] or 0.0)
    beat(redis, alarm="the CTR is not people's")
    beat(redis)  # a batch of a long reading leaves the alarm as it is
    age_s, alarm = metrics()
    assert age_s is not None and age_s < 5 and alarm == 1
    beat(redis, alarm="")
    assert metrics()[1] == 0


def test_looks_come_back_in_order_dated_by_redis(redis: Redis) -> None:
    for units in (1, 2, 3):
        looks.record_look(redis, {"units": units, "at_us": 7})
    found = looks.read_looks(redis, count=2)
    assert [look["units"] for look in found] == [2, 3]
    assert found[0]["at_us"] <= found[1]["at_us"] and found[0]["at_us"] > 10**15
