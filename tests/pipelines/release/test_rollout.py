"""`endcap rollout` for people: start, status, advance and watch, and the plan from the traffic measured."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from redis import Redis
from shops.canary import ACT, FEEDBACK, NOON, OLD, PARAMS, Shop, start_canary
from shops.storefront import make_home, release_of

from feature_repo.clock import DAY_US
from monitoring.experiment.guard import Step, Traffic
from monitoring.experiment.plan import measured, plan
from monitoring.experiment.watch import Guard
from pipelines.release import rollout
from serving.release import state as control
from serving.release.router import CHALLENGER, CHAMPION
from serving.release.state import RolloutError, RolloutState


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


def ignore(_: RolloutState) -> None:
    pass


@pytest.fixture
def guard(redis: Redis) -> Guard:
    return Guard(redis, PARAMS, FEEDBACK, ignore)


@pytest.fixture
def canary(redis: Redis) -> RolloutState:
    return start_canary(redis)


def test_watching_ends_when_a_person_stops_the_canary(
    redis: Redis, guard: Guard, canary: RolloutState
) -> None:
    shop = Shop(redis, {})
    days = iter(range(5))

    def sleep(_: float) -> None:
        shop.open(20)
        if next(days) == 2:
            control.rollback(redis, canary, ACT)

    assert rollout.watch(guard, redis, 0.5, True, lambda *_: None, lambda: NOON, sleep) == 1


def test_starting_needs_a_registered_challenger(redis: Redis) -> None:
    control.install(redis, OLD, ACT)
    with pytest.raises(RolloutError, match="none is registered; `endcap promote` registers one"):
        rollout.start(redis, PARAMS, ACT, None)


def test_the_command_tells_the_state_and_the_last_look(
    redis: Redis,
    redis_url: str,
    guard: Guard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    home, bundle = make_home(tmp_path)
    monkeypatch.setenv("ENDCAP_HOME", str(home))
    control.install(redis, OLD, ACT)
    new = release_of(home, bundle)
    begun = rollout.start(redis, PARAMS, ACT, new)
    Shop(redis, {}).open(50)
    guard.look(NOON)
    assert rollout.main("status") == 0
    lines = capsys.readouterr().out.splitlines()
    on_trial = f"challenger {new.digest[:12]} 10 % outside the holdout (version 2)"
    assert lines[0] == f"champion old serves 90 %, {on_trial}"
    assert lines[1].startswith("last look: HOLD, ")
    assert re.fullmatch(r"guard: looked \d\.\d s ago", lines[2])
    assert rollout.main("status", json_output=True) == 0
    told = capsys.readouterr().out
    state, _, lives = map(json.loads, told.splitlines())
    assert state["percent"] == 10 and lives["guard_age_s"] < 10
    assert begun.salt and begun.salt not in told
    redis.hincrby("endcap:guard", "at_us", -3_600_000_000)
    assert rollout.main("status") == 0
    assert re.search(
        r"guard: the last looked 3,60\d s ago; `endcap up guard` starts one, without one the canary steps "
        "back after 60 s",
        capsys.readouterr().out,
    )
    assert rollout.main("advance", why="reviewed by hand") == 0
    assert control.read_audit(redis, count=1)[0]["why"] == "reviewed by hand"
    state = control.read(redis)
    assert state is not None
    assert state.percent == 50


def test_the_plan_says_how_long_a_step_takes_and_how_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = replace(PARAMS, steps=(Step(50, 2000), Step(100, 10)))
    busy, quiet = Traffic(20_000.0, 0.05, 24.0, 0.05), Traffic(200.0, 0.05, 24.0, 0.05)
    same, worse = plan(busy, params, 0.02, np.random.default_rng(3), runs=60, drops=(0.0, 0.5))
    assert same["planned_days"] == pytest.approx(2000 / (20_000 * 0.98 * 0.5))
    assert same["rolled_back"] == 0.0
    assert worse["rolled_back"] == 1.0
    assert worse["rollback_days"] < same["advance_days"]
    assert worse["rollback_exposures"] == worse["rollback_user_days"] * 24.0
    (slow,) = plan(quiet, params, 0.02, np.random.default_rng(3), runs=10, drops=(0.5,))
    assert slow["rollback_days"] > 50 * worse["rollback_days"]
    shutil.copy("params.yaml", tmp_path)
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    picture = tmp_path / "plan.svg"
    assert rollout.main("plan", ctr=0.08, runs=5, picture=picture) == 0
    told = capsys.readouterr().out
    assert "20,000 user-days a day, 30.0 slots each, CTR 8.00%" in told
    assert "what was not given is assumed" in told
    assert picture.stat().st_size > 10_000


def test_traffic_is_measured_in_the_exposure_stream(redis: Redis, canary: RolloutState) -> None:
    assert measured(redis, PARAMS, FEEDBACK) is None
    Shop(redis, {CHAMPION: 0.1, CHALLENGER: 0.1}).open(600)
    late: dict[str, Any] = {"request_id": "late", "ts": NOON + 2 * DAY_US, "unit": "x", "session_id": "x"}
    late |= {"arm": CHAMPION, "bundle": "b", "surface": "pdp_fbt", "items": ["a"]}
    redis.xadd("endcap:exposures", {"exposure": orjson.dumps(late)})
    traffic = measured(redis, PARAMS, FEEDBACK)
    assert traffic is not None
    assert traffic.user_days_per_day == pytest.approx(601 / 2)
    assert traffic.ctr == pytest.approx(0.1, rel=0.1)
    assert traffic.impressions == pytest.approx(24.0, rel=0.01)
    assert traffic.clustering < 0.01
