"""`endcap rollout history`: the turns of releases, as real changes of the rollout leave them in the audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from monitoring.experiment.turns import Turn, run, text, turns
from serving.release import state as control
from serving.release.state import Act, Release

A, B, C = (Release(letter * 16, f"data/bundles/{letter * 16}") for letter in "abc")


def act(who: str = "pat", why: str = "a test") -> Act:
    return Act(who, why, 0)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def told(redis: Redis) -> list[Turn]:
    return turns(reversed(control.read_audit(redis)))


def canary(redis: Redis, release: Release, upto: int) -> None:
    control.record(redis, "register_challenger", act(why=f"new {release.digest[0]}"), release)
    state = control.start_canary(redis, control.present(redis), release, 10, release.digest, act())
    for percent in (50, 100):
        if percent <= upto:
            state = control.advance(redis, state, percent, act("guard", "no sign of harm"))


def test_each_release_has_a_turn_with_who_why_and_how_it_ended(redis: Redis) -> None:
    control.install(redis, A, act(why="the first"))
    canary(redis, B, upto=50)
    control.rollback(redis, control.present(redis), act("guard", "CTR is credibly down"))
    canary(redis, C, upto=100)
    control.promote_champion(redis, control.present(redis), act("guard", "healthy"))
    found = {turn.release: turn for turn in told(redis)}
    assert list(found) == [A.digest, B.digest, C.digest]
    first, bad, good = found.values()
    assert (first.how, first.ended_by, first.why) == (f"replaced by {C.digest}", "guard", "the first")
    assert (bad.percents, bad.how, bad.ended_why) == ([10, 50], "rolled back at 50 %", "CTR is credibly down")
    assert (bad.who, bad.why) == ("pat", "new b")
    assert (good.percents, good.now, good.ended_us) == ([10, 50, 100], "serves", None)
    assert good.champion_us == first.ended_us


def test_what_was_taken_back_and_comes_again_has_another_turn(redis: Redis) -> None:
    control.install(redis, A, act())
    control.install(redis, B, act())
    canary(redis, C, upto=10)
    control.revert(redis, control.present(redis), A, act(why="complaints"))
    assert [(turn.release, turn.now) for turn in told(redis)] == [
        (A.digest, f"replaced by {B.digest}"),
        (B.digest, f"taken back, {A.digest} serves"),
        (C.digest, f"ended, {A.digest} came back"),
        (A.digest, "serves"),
    ]


def test_a_challenger_waits_is_on_trial_or_is_set_aside(redis: Redis) -> None:
    control.install(redis, A, act())
    control.record(redis, "register_challenger", act(), B)
    assert told(redis)[-1].now == "waits for its canary"
    canary(redis, C, upto=10)
    assert [turn.now for turn in told(redis)] == ["serves", f"set aside for {C.digest}", "on trial at 10 %"]
    control.record(redis, "rules published", act())
    assert len(told(redis)) == 3


def test_entries_that_named_no_release_still_tell_their_turns(redis: Redis) -> None:
    control.install(redis, A, act())
    canary(redis, B, upto=10)
    control.rollback(redis, control.present(redis), act())
    entries = [entry | {"release": "", "percent": None} for entry in reversed(control.read_audit(redis))]
    assert [(turn.release, turn.now) for turn in turns(entries)] == [
        ("(not recorded)", "serves"),
        ("(not recorded)", "rolled back"),
    ]


WHATS = ("register_challenger", "start_canary", "advance", "rollback", "install", "promote_champion")


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from((*WHATS, "revert_to_previous", "other")), st.sampled_from("abc"))),
    st.text(max_size=200),
)
def test_any_part_of_an_audit_is_told_in_eighty_columns(steps: list[tuple[str, str]], why: str) -> None:
    """The audit is cut at its beginning, so an entry may be the first of a turn that began before."""
    entries: list[dict[str, Any]] = [
        {"what": what, "release": name * 16, "percent": 10, "at_us": n, "who": why[:99], "why": why}
        for n, (what, name) in enumerate(steps)
    ]
    found = turns(entries)
    assert len(found) <= len(entries)
    assert sum(turn.now == "serves" for turn in found) <= 1
    lines = [line for turn in found for line in text(turn, 0.3).split("\n")]
    assert all(len(line) <= 80 and line.isprintable() for line in lines)


def test_the_newest_come_first_and_the_rest_is_counted(redis: Redis) -> None:
    for release in (A, B, C):
        control.install(redis, release, act())
    printed: list[str] = []
    say: Callable[[str, Any], None] = lambda line, _: printed.append(line)  # noqa: E731
    ndcgs = {B.digest: 0.25}
    run(control.read_audit(redis), ndcgs.get, 2, say)
    assert printed[0].startswith(f"{C.digest}  NDCG@12 unknown  ")
    assert printed[1].startswith(f"{B.digest}  NDCG@12 0.250  ")
    assert printed[2] == "1 earlier; --last 3 shows them"
    redis.flushall()
    run(control.read_audit(redis), ndcgs.get, 2, say)
    assert printed[-1] == "nothing was ever promoted; `endcap promote` does it"
