"""The guard at work on a real Redis: shoppers arrive, it looks, it moves the rollout."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from redis import Redis

from feature_repo.errors import EndcapError
from feature_repo.params import load
from monitoring.feedback import DAY, FeedbackParams
from monitoring.guard import RolloutParams, Step, Traffic, Verdict
from pipelines import rollout
from pipelines.rollout_guard import Guard
from pipelines.rollout_plan import measured, plan
from serving import state as control
from serving.router import CHALLENGER, CHAMPION, assign
from serving.state import Act, Release, RolloutError, RolloutState

OLD, NEW = (Release(name, f"data/bundles/{name}") for name in ("old", "new"))
NOON = 20_000 * DAY + DAY // 2
ACT = Act("alice", "test", NOON)
PARAMS = replace(
    load("rollout", RolloutParams),
    steps=(Step(10, 300), Step(50, 300), Step(100, 100)),
    grace_ms=0,
)
FEEDBACK = load("feedback", FeedbackParams)


class Shop:
    """Shoppers of whatever Redis says serves: each sees two lists of 12 and clicks with her arm's CTR."""

    def __init__(self, redis: Redis, ctr: dict[str, float], seed: int = 1) -> None:
        self.redis, self.ctr = redis, ctr
        self.rng, self.ids = np.random.default_rng(seed), count()

    def open(self, shoppers: int) -> None:
        """Serve `shoppers` new shoppers; exposures and clicks go to the streams."""
        state = control.read(self.redis)
        assert state is not None
        pipe = self.redis.pipeline(transaction=False)
        for number in (next(self.ids) for _ in range(shoppers)):
            unit = f"shopper-{number}"
            arm = assign(unit, state.salt, 0.02, state.percent)
            for visit in range(2):
                request, items = f"{unit}-{visit}", [f"item-{i}" for i in range(12)]
                record: dict[str, Any] = {"request_id": request, "ts": NOON, "unit": unit, "session_id": unit}
                record |= {"arm": arm, "bundle": "b", "surface": "pdp_fbt", "items": items}
                pipe.xadd("endcap:exposures", {"exposure": orjson.dumps(record)})
                for item in np.flatnonzero(self.rng.random(12) < self.ctr.get(arm, 0.05)):
                    click = {"event_id": f"{request}-{item}", "type": "click", "event_ts": NOON + 1}
                    click |= {"item_id": items[item], "request_id": request, "session_id": unit}
                    pipe.xadd("endcap:events", {"event": orjson.dumps(click)})
        pipe.execute()


class Hooks:
    """Remembers which states it was told of."""

    def __init__(self) -> None:
        self.promoted: list[RolloutState] = []
        self.rolled_back: list[RolloutState] = []


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


@pytest.fixture
def guard(redis: Redis, hooks: Hooks) -> Guard:
    return Guard(redis, PARAMS, FEEDBACK, hooks.promoted.append, hooks.rolled_back.append)


@pytest.fixture
def canary(redis: Redis) -> RolloutState:
    control.install(redis, OLD, ACT)
    return rollout.start(redis, PARAMS, ACT, NEW)


def audited(redis: Redis) -> list[str]:
    return [entry["what"] for entry in control.read_audit(redis)][::-1]


def watched(guard: Guard, redis: Redis, shop: Shop, per_look: int = 500, looks: int = 60) -> list[str]:
    """What `endcap rollout watch --until-decided` says while the shop is open, its exit code last."""
    said: list[str] = []
    open_days = iter(range(looks))

    def sleep(_: float) -> None:
        next(open_days)  # StopIteration: not decided in time
        shop.open(per_look)

    code = rollout.watch(guard, redis, 0.5, True, lambda line, _: said.append(line), lambda: NOON, sleep)
    return [*said, str(code)]


def test_a_bad_challenger_is_rolled_back_while_it_serves_few(
    redis: Redis, guard: Guard, hooks: Hooks, canary: RolloutState
) -> None:
    said = watched(guard, redis, Shop(redis, {CHAMPION: 0.1, CHALLENGER: 0.03}))
    state = control.read(redis)
    assert state is not None
    assert (state.champion, state.challenger, state.percent) == (OLD, None, 0)
    assert said[-1] == "1"
    assert any("ROLLBACK, CTR is credibly down by more than 3%" in line for line in said)
    assert (hooks.promoted, hooks.rolled_back) == ([], [state])
    entry = control.read_audit(redis, count=1)[0]
    assert (entry["who"], entry["what"]) == ("guard", "rollback")
    assert entry["numbers"]["upper"] < -0.03
    assert entry["numbers"]["percent"] == 10


def test_a_good_challenger_goes_up_step_by_step_and_becomes_the_champion(
    redis: Redis, guard: Guard, hooks: Hooks, canary: RolloutState
) -> None:
    said = watched(guard, redis, Shop(redis, {CHAMPION: 0.05, CHALLENGER: 0.08}))
    state = control.read(redis)
    assert state is not None
    assert (state.champion, state.previous, state.challenger) == (NEW, OLD, None)
    assert said[-1] == "0"
    assert (hooks.promoted, hooks.rolled_back) == ([state], [])
    assert audited(redis) == ["install", "start_canary", "advance", "advance", "promote_champion"]
    assert [line.split(":")[0] for line in said if "ADVANCE" in line] == [
        "canary 10 %",
        "canary 50 %",
        "canary 100 %",
    ]


def test_every_look_that_sees_something_new_is_logged_and_only_changes_are_audited(
    redis: Redis, guard: Guard, canary: RolloutState
) -> None:
    shop = Shop(redis, {})
    for _ in range(3):
        shop.open(100)
        for _ in range(2):
            look = guard.look(NOON)
            assert look is not None
            assert look.decision.verdict is Verdict.HOLD
    looks = control.read_looks(redis)
    assert [look["verdict"] for look in looks] == ["HOLD"] * 3
    assert [look["champion_user_days"] + look["user_days"] for look in looks] == sorted(
        {look["champion_user_days"] + look["user_days"] for look in looks}
    )
    assert looks[-1]["reason"].endswith("user-days to go")
    assert audited(redis) == ["install", "start_canary"]


def test_a_new_step_starts_new_statistics(redis: Redis, guard: Guard, canary: RolloutState) -> None:
    shop = Shop(redis, {})
    shop.open(200)
    first = guard.look(NOON)
    control.advance(redis, canary, 50, ACT)
    second = guard.look(NOON)
    assert first is not None
    assert second is not None
    assert first.decision.user_days > 0
    assert (second.decision.percent, second.decision.user_days, second.decision.champion_user_days) == (
        50,
        0,
        0,
    )


def test_exposures_by_workers_that_had_not_noticed_the_step_yet_do_not_count(
    redis: Redis, hooks: Hooks, canary: RolloutState
) -> None:
    patient = replace(PARAMS, grace_ms=60_000)
    Shop(redis, {}).open(50)
    look = Guard(redis, patient, FEEDBACK, hooks.promoted.append, hooks.rolled_back.append).look(NOON)
    assert look is not None
    assert (look.decision.user_days, look.decision.champion_user_days) == (0, 0)


def test_a_restarted_guard_sees_what_the_old_one_saw(
    redis: Redis, guard: Guard, hooks: Hooks, canary: RolloutState
) -> None:
    shop = Shop(redis, {})
    for _ in range(3):
        shop.open(100)
        before = guard.look(NOON)
    other = Guard(redis, PARAMS, FEEDBACK, hooks.promoted.append, hooks.rolled_back.append)
    after = other.look(NOON)
    assert before is not None
    assert after is not None
    assert before.decision == after.decision


def test_errors_roll_back_before_a_single_click(redis: Redis, guard: Guard, canary: RolloutState) -> None:
    control.publish_health(redis, CHALLENGER, requests=50, errors=40, empty=0, p99_ms=9.0)
    look = guard.look(NOON)
    assert look is not None
    assert look.decision.verdict is Verdict.ROLLBACK
    assert look.state.challenger is None


def test_only_a_p99_that_stays_high_over_new_requests_rolls_back(
    redis: Redis, guard: Guard, canary: RolloutState
) -> None:
    verdicts, strikes = [], PARAMS.switches.strikes
    for p99 in (*[90.0] * (strikes - 1), 8.0, *[90.0] * strikes):
        control.publish_health(redis, CHALLENGER, requests=10, errors=0, empty=0, p99_ms=p99)
        for _ in range(3):  # three looks, one report
            look = guard.look(NOON)
            if look is not None:
                verdicts.append(look.decision.verdict)
    assert verdicts == [Verdict.HOLD] * (3 * (2 * strikes - 1)) + [Verdict.ROLLBACK]


def test_an_alias_that_cannot_be_moved_does_not_undo_the_rollback(redis: Redis, canary: RolloutState) -> None:
    def broken(_: RolloutState) -> None:
        raise EndcapError("mlflow: does not answer")

    control.publish_health(redis, CHALLENGER, requests=50, errors=40, empty=0, p99_ms=9.0)
    look = Guard(redis, PARAMS, FEEDBACK, broken, broken).look(NOON)
    assert look is not None
    assert look.trouble == "mlflow: does not answer"
    state = control.read(redis)
    assert state is not None
    assert state.challenger is None


def test_a_guard_without_a_canary_does_nothing(redis: Redis, guard: Guard) -> None:
    assert guard.look(NOON) is None
    assert watched(guard, redis, Shop(redis, {})) == [
        "no canary is on trial; `endcap rollout start` starts one",
        "1",
    ]


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
    canary: RolloutState,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    Shop(redis, {}).open(50)
    guard.look(NOON)
    assert rollout.main(rollout.Action.status) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "champion old serves 90 %, challenger new 10 % outside the holdout (version 2)"
    assert lines[1].startswith("last look: HOLD, ")
    assert rollout.main(rollout.Action.status, json_output=True) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["percent"] == 10
    assert rollout.main(rollout.Action.advance, why="reviewed by hand") == 0
    assert control.read_audit(redis, count=1)[0]["why"] == "reviewed by hand"
    state = control.read(redis)
    assert state is not None
    assert state.percent == 50


def test_the_plan_says_how_long_a_step_takes_and_how_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = replace(PARAMS, steps=(Step(50, 2000), Step(100, 10)))
    busy, quiet = Traffic(20_000.0, 0.05, 24.0, 0.05), Traffic(200.0, 0.05, 24.0, 0.05)
    lines = plan(busy, params, 0.02, np.random.default_rng(3), runs=60, drops=(0.0, 0.5))
    same, worse = (line.as_dict() for line in lines)
    assert same["planned_days"] == pytest.approx(2000 / (20_000 * 0.98 * 0.5))
    assert same["rolled_back"] == 0.0
    assert worse["rolled_back"] == 1.0
    assert worse["rollback_days"] < same["advance_days"]
    assert worse["rollback_exposures"] == worse["rollback_user_days"] * 24.0
    (slow,) = plan(quiet, params, 0.02, np.random.default_rng(3), runs=10, drops=(0.5,))
    assert slow.as_dict()["rollback_days"] > 50 * worse["rollback_days"]
    shutil.copy("params.yaml", tmp_path)
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    picture = tmp_path / "plan.svg"
    assert rollout.main(rollout.Action.plan, ctr=0.08, runs=5, picture=picture) == 0
    told = capsys.readouterr().out
    assert "20,000 user-days a day, 30.0 slots each, CTR 8.00%" in told
    assert "what was not given is assumed" in told
    assert picture.stat().st_size > 10_000


def test_traffic_is_measured_in_the_exposure_stream(redis: Redis, canary: RolloutState) -> None:
    assert measured(redis, PARAMS, FEEDBACK) is None
    Shop(redis, {CHAMPION: 0.1, CHALLENGER: 0.1}).open(600)
    late: dict[str, Any] = {"request_id": "late", "ts": NOON + 2 * DAY, "unit": "x", "session_id": "x"}
    late |= {"arm": CHAMPION, "bundle": "b", "surface": "pdp_fbt", "items": ["a"]}
    redis.xadd("endcap:exposures", {"exposure": orjson.dumps(late)})
    traffic = measured(redis, PARAMS, FEEDBACK)
    assert traffic is not None
    assert traffic.user_days_per_day == pytest.approx(601 / 2)
    assert traffic.ctr == pytest.approx(0.1, rel=0.1)
    assert traffic.impressions == pytest.approx(24.0, rel=0.01)
    assert traffic.clustering < 0.01
