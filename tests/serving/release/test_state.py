"""The control state in a real Redis: every change is compare-and-set and leaves an audit entry."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from serving.release import state as control
from serving.release.state import Act, Health, Release, RolloutConflict, RolloutError, RolloutState

OLD, NEW, NEWER = (Release(name, f"data/bundles/{name}") for name in ("old", "new", "newer"))
NOW = 1_700_000_000_000_000


def act(why: str = "test") -> Act:
    return Act("alice", why, NOW)


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


@pytest.fixture
def installed(redis: Redis) -> RolloutState:
    return control.install(redis, OLD, act())


def test_nothing_is_stored_before_the_first_release(redis: Redis) -> None:
    assert control.read(redis) is None


def test_what_a_change_returns_is_what_workers_read(redis: Redis, installed: RolloutState) -> None:
    canary = control.start_canary(redis, installed, NEW, 10, "exp-1", act())
    assert control.read(redis) == canary
    assert (canary.champion, canary.challenger, canary.percent) == (OLD, NEW, 10)
    assert (canary.version, canary.experiment) == (2, "exp-1")


def test_a_client_that_decodes_to_text_reads_the_same(redis_url: str, installed: RolloutState) -> None:
    assert control.read(Redis.from_url(redis_url, decode_responses=True)) == installed


def test_a_canary_that_goes_all_the_way_becomes_the_champion(redis: Redis, installed: RolloutState) -> None:
    state = control.start_canary(redis, installed, NEW, 10, "exp-1", act())
    state = control.advance(redis, state, 50, act())
    assert (state.percent, state.step) == (50, 1)
    state = control.advance(redis, state, 100, act())
    state = control.promote_champion(redis, state, act())
    assert (state.champion, state.previous, state.challenger, state.percent) == (NEW, OLD, None, 0)


def test_a_rollback_leaves_the_champion_alone(redis: Redis, installed: RolloutState) -> None:
    state = control.start_canary(redis, installed, NEW, 10, "exp-1", act())
    state = control.rollback(redis, state, act())
    assert (state.champion, state.challenger, state.percent, state.previous) == (OLD, None, 0, None)


def test_reverting_ends_a_canary_and_can_itself_be_reverted(redis: Redis, installed: RolloutState) -> None:
    state = control.install(redis, NEW, act())
    state = control.start_canary(redis, state, NEWER, 10, "exp-1", act())
    state = control.revert(redis, state, OLD, act())
    assert (state.champion, state.previous, state.challenger, state.percent) == (OLD, NEW, None, 0)
    assert control.revert(redis, state, NEW, act()).champion == NEW


def test_changes_that_the_state_does_not_allow_say_what_to_do(redis: Redis, installed: RolloutState) -> None:
    with pytest.raises(RolloutError, match="none is on trial; start one with `endcap rollout start`"):
        control.rollback(redis, installed, act())
    with pytest.raises(RolloutError, match="old is the champion already"):
        control.start_canary(redis, installed, OLD, 10, "exp-1", act())
    with pytest.raises(RolloutError, match="percent: 101 is not allowed"):
        control.start_canary(redis, installed, NEW, 101, "exp-1", act())
    canary = control.start_canary(redis, installed, NEW, 10, "exp-1", act())
    with pytest.raises(RolloutError, match="new is on trial at 10 %"):
        control.install(redis, NEWER, act())
    with pytest.raises(RolloutError, match="allowed: more than 10, up to 100"):
        control.advance(redis, canary, 10, act())
    with pytest.raises(RolloutError, match="10 is not 100"):
        control.promote_champion(redis, canary, act())
    assert control.read(redis) == canary


def test_a_stale_view_changes_nothing(redis: Redis, installed: RolloutState) -> None:
    canary = control.start_canary(redis, installed, NEW, 10, "exp-1", act())
    control.rollback(redis, canary, act())
    with pytest.raises(RolloutConflict, match="changed by somebody else"):
        control.advance(redis, canary, 50, act())
    assert [entry["what"] for entry in control.read_audit(redis)] == ["rollback", "start_canary", "install"]


def test_of_many_at_once_exactly_one_wins(redis: Redis, installed: RolloutState) -> None:
    canary = control.start_canary(redis, installed, NEW, 10, "exp-1", act())

    def attempt(percent: int) -> int | None:
        try:
            return control.advance(redis, canary, percent, act()).percent
        except RolloutConflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [percent for percent in pool.map(attempt, range(20, 60)) if percent]
    state = control.read(redis)
    assert state is not None
    assert won == [state.percent]
    assert len(control.read_audit(redis)) == 3


def test_each_change_is_audited_with_who_what_why_and_the_numbers(
    redis: Redis, installed: RolloutState
) -> None:
    canary = control.start_canary(redis, installed, NEW, 10, "exp-1", act())
    numbers = {"units": 412, "estimate": -0.31}
    control.rollback(redis, canary, Act("guard", "CTR fell", NOW + 5, numbers))
    entry = control.read_audit(redis, count=1)[0]
    del entry["id"], entry["at_us"]
    assert entry == {
        "said_us": NOW + 5,
        "who": "guard",
        "what": "rollback",
        "why": "CTR fell",
        "numbers": numbers,
        "version": 3,
        "release": NEW.digest,
        "percent": 0,
    }


def test_other_acts_are_recorded_without_a_version(redis: Redis) -> None:
    control.record(redis, "rules_published", Act("bob", "sale", NOW, {"rules": 3}))
    assert control.read_audit(redis)[0]["version"] is None


def test_a_step_begins_after_the_newest_exposure_and_remembers_where_the_experiment_began(
    redis: Redis, installed: RolloutState
) -> None:
    assert installed.since == "0-0"
    first = redis.xadd("endcap:exposures", {"exposure": b"early"})
    canary = control.start_canary(redis, installed, NEW, 10, "exp-1", act())
    second = redis.xadd("endcap:exposures", {"exposure": b"later"})
    later = control.advance(redis, canary, 50, act())
    assert (canary.begun, canary.since) == (first.decode(), first.decode())
    assert (later.begun, later.since) == (first.decode(), second.decode())


def test_the_audit_is_dated_by_redis_whatever_clocks_say(redis: Redis, installed: RolloutState) -> None:
    hour = 3_600_000_000
    seconds, _ = redis.time()  # type: ignore[misc]
    state = installed
    for now_us in (NOW + hour, NOW - hour):
        canary = control.start_canary(redis, state, NEW, 10, "exp", Act("bob", "test", now_us))
        state = control.rollback(redis, canary, Act("bob", "test", now_us))
    audit = control.read_audit(redis)
    times = [entry["at_us"] for entry in audit]
    assert times == sorted(times, reverse=True)
    assert all(abs(at_us - seconds * 1_000_000) < hour for at_us in (*times, state.started_us))
    assert [entry["said_us"] - NOW for entry in audit] == [-hour, -hour, hour, hour, 0]


def test_the_salt_is_drawn_anew_and_told_to_nobody(redis: Redis, installed: RolloutState) -> None:
    first = control.start_canary(redis, installed, NEW, 10, "exp-1", act())
    step = control.advance(redis, first, 50, act())
    second = control.start_canary(redis, control.rollback(redis, step, act()), NEW, 10, "exp-1", act())
    assert len(first.salt) == 32 and first.salt == step.salt != second.salt
    told = f"{second} {second.told()} {control.read_audit(redis)}"
    assert not [salt for salt in (first.salt, second.salt) if salt in told]
    assert "salt" not in second.told()


def test_the_audit_has_a_bound(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "AUDIT_KEPT", 100)
    for _ in range(400):
        control.record(redis, "rules_published", act())
    assert redis.xlen(control.AUDIT) < 250  # whole nodes of the stream are dropped


def test_health_adds_up_over_workers_and_a_new_step_starts_from_zero(
    redis: Redis, installed: RolloutState
) -> None:
    for _worker in range(2):
        control.publish_health(redis, "challenger", requests=100, errors=2, empty=1, p99_ms=7.5)
    assert control.read_health(redis, "challenger") == Health(200, 4, 2, 7.5)
    assert control.read_health(redis, "champion") == Health()
    control.start_canary(redis, installed, NEW, 10, "exp-1", act())
    assert control.read_health(redis, "challenger") == Health()
