"""The guard at work on a real Redis: shoppers arrive, it looks, it moves the rollout."""

from __future__ import annotations

import pytest
from redis import Redis
from shops.canary import ACT, FEEDBACK, NEW, NOON, OLD, PARAMS, Shop, start_canary

from feature_repo.errors import EndcapError
from monitoring.experiment.guard import Move
from monitoring.experiment.watch import RECHECK_US, Guard
from pipelines.release import rollout
from serving.release import state as control
from serving.release.looks import read_beat, read_looks
from serving.release.router import CHALLENGER, CHAMPION
from serving.release.state import Release, RolloutState


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


@pytest.fixture
def followed() -> list[RolloutState]:
    """The states that the aliases were told of."""
    return []


@pytest.fixture
def guard(redis: Redis, followed: list[RolloutState]) -> Guard:
    return Guard(redis, PARAMS, FEEDBACK, followed.append)


@pytest.fixture
def canary(redis: Redis) -> RolloutState:
    return start_canary(redis)


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
    redis: Redis, guard: Guard, followed: list[RolloutState], canary: RolloutState
) -> None:
    said = watched(guard, redis, Shop(redis, {CHAMPION: 0.1, CHALLENGER: 0.03}))
    state = control.read(redis)
    assert state is not None
    assert (state.champion, state.challenger, state.percent) == (OLD, None, 0)
    assert said[-1] == "1"
    assert any("ROLLBACK, CTR is credibly down by more than 3%" in line for line in said)
    assert followed == [state]
    entry = control.read_audit(redis, count=1)[0]
    assert (entry["who"], entry["what"]) == ("guard", "rollback")
    assert entry["numbers"]["upper"] < -0.03
    assert entry["numbers"]["percent"] == 10


def test_a_good_challenger_goes_up_step_by_step_and_becomes_the_champion(
    redis: Redis, guard: Guard, followed: list[RolloutState], canary: RolloutState
) -> None:
    said = watched(guard, redis, Shop(redis, {CHAMPION: 0.05, CHALLENGER: 0.08}))
    state = control.read(redis)
    assert state is not None
    assert (state.champion, state.previous, state.challenger) == (NEW, OLD, None)
    assert said[-1] == "0"
    assert followed == [state]
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
            assert look.decision.move is Move.HOLD
    looks = read_looks(redis)
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
    redis: Redis, followed: list[RolloutState], canary: RolloutState
) -> None:
    shop = Shop(redis, {})
    shop.open(50)
    late = redis.xrange("endcap:exposures")
    control.advance(redis, canary, 50, ACT)
    for _, fields in late:
        redis.xadd("endcap:exposures", fields)  # what was made before, logged after
    look = Guard(redis, PARAMS, FEEDBACK, followed.append).look(NOON)
    assert look is not None
    assert (look.decision.percent, look.decision.user_days, look.decision.champion_user_days) == (50, 0, 0)
    shop.open(50)
    look = Guard(redis, PARAMS, FEEDBACK, followed.append).look(NOON)
    assert look is not None
    assert look.decision.user_days + look.decision.champion_user_days > 40


def test_a_restarted_guard_sees_what_the_old_one_saw(
    redis: Redis, guard: Guard, followed: list[RolloutState], canary: RolloutState
) -> None:
    shop = Shop(redis, {})
    for _ in range(3):
        shop.open(100)
        before = guard.look(NOON)
    other = Guard(redis, PARAMS, FEEDBACK, followed.append)
    after = other.look(NOON)
    assert before is not None
    assert after is not None
    assert before.decision == after.decision


def test_errors_roll_back_before_a_single_click(redis: Redis, guard: Guard, canary: RolloutState) -> None:
    control.publish_health(redis, CHALLENGER, requests=50, errors=40, empty=0, p99_ms=9.0)
    look = guard.look(NOON)
    assert look is not None
    assert look.decision.move is Move.ROLLBACK
    assert look.state.challenger is None


def test_only_a_p99_that_stays_high_over_new_requests_rolls_back(
    redis: Redis, guard: Guard, canary: RolloutState
) -> None:
    moves, strikes = [], PARAMS.switches.strikes
    for p99 in (*[90.0] * (strikes - 1), 8.0, *[90.0] * strikes):
        control.publish_health(redis, CHALLENGER, requests=10, errors=0, empty=0, p99_ms=p99)
        for _ in range(3):  # three looks, one report
            look = guard.look(NOON)
            if look is not None:
                moves.append(look.decision.move)
    assert moves == [Move.HOLD] * (3 * (2 * strikes - 1)) + [Move.ROLLBACK]


def test_an_alias_that_cannot_be_moved_does_not_undo_the_rollback(redis: Redis, canary: RolloutState) -> None:
    def broken(_: RolloutState) -> None:
        raise EndcapError("mlflow: does not answer")

    control.publish_health(redis, CHALLENGER, requests=50, errors=40, empty=0, p99_ms=9.0)
    look = Guard(redis, PARAMS, FEEDBACK, broken).look(NOON)
    assert look is not None
    assert look.trouble == "mlflow: does not answer"
    state = control.read(redis)
    assert state is not None
    assert state.challenger is None


def test_a_challenger_that_is_damaged_on_disk_goes_no_further_until_it_is_whole_again(
    redis: Redis, followed: list[RolloutState], canary: RolloutState
) -> None:
    broken, checked = [True], []

    def assure(release: Release) -> None:
        checked.append(release)
        if broken:
            raise EndcapError("data/bundles/new: ranker.txt has another checksum")

    guard, shop = Guard(redis, PARAMS, FEEDBACK, followed.append, assure), Shop(redis, {CHALLENGER: 0.2})
    for _ in range(60):
        shop.open(500)
        look = guard.look(NOON)
        assert look is not None
        if look.decision.alarm:
            break
    assert (look.decision.move, look.state.percent) == (Move.HOLD, 10)
    assert look.decision.reason == "alarm: data/bundles/new: ranker.txt has another checksum"
    assert checked == [NEW]
    beat = read_beat(redis)
    assert beat is not None
    assert beat.alarm == look.decision.alarm
    broken.clear()
    look = guard.look(NOON + 1)
    assert look is not None
    assert (look.decision.move, checked) == (Move.HOLD, [NEW])  # it is not read at every look
    look = guard.look(NOON + RECHECK_US)
    assert look is not None
    assert (look.decision.move, look.state.percent, checked) == (Move.ADVANCE, 50, [NEW, NEW])


def test_a_guard_without_a_canary_does_nothing(redis: Redis, guard: Guard) -> None:
    assert guard.look(NOON) is None
    assert watched(guard, redis, Shop(redis, {})) == [
        "no canary is on trial; `endcap rollout start` starts one",
        "1",
    ]
