"""A change of the rollout that was killed before the aliases followed is followed by the guard."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from redis import Redis
from shops.release import ACT, Build, alias_holders

from pipelines.release import aliases
from pipelines.release.aliases import FOLLOWED, LATE_S, Straggler
from pipelines.release.promote import promote
from pipelines.release.registry import Registry
from serving.release import state as control
from serving.release.state import Release, RolloutState


def climbed(redis: Redis, build: Build) -> tuple[RolloutState, Release]:
    """A canary that serves everybody, by commands that were killed before the aliases followed."""
    promote(build("one"), redis, Registry(), ACT)
    second = promote(build("two"), redis, Registry(), ACT).release
    now = control.start_canary(redis, control.present(redis), second, 100, "two-1", ACT, 600.0)
    return control.promote_champion(redis, now, ACT), second


def looks(redis: Redis) -> Callable[..., str]:
    """A guard's looks, each so many seconds after the last."""
    clock = [0.0]
    straggler = Straggler(redis, lambda: clock[0])

    def look(after_s: float = 0.0) -> str:
        clock[0] += after_s
        return straggler.look(control.read(redis))

    return look


def test_after_a_while_the_aliases_repeat_what_nobody_made_them_repeat(redis: Redis, build: Build) -> None:
    now, second = climbed(redis, build)
    look = looks(redis)
    assert alias_holders(Registry())["champion"] != second
    assert look() == look(LATE_S / 2) == ""  # whoever changed it may be at it
    assert f"repeat version {now.version}" in look(LATE_S)
    assert alias_holders(Registry()) == {"champion": second, "previous": now.previous}
    assert look(LATE_S) == ""


def test_a_store_that_is_locked_is_told_and_tried_again(redis: Redis, build: Build, home: Path) -> None:
    _, second = climbed(redis, build)
    look = looks(redis)
    look()
    (file,) = home.rglob("mlflow.db")
    with closing(sqlite3.connect(file, isolation_level=None)) as locked:
        locked.execute("BEGIN EXCLUSIVE")
        assert "but: registry: cannot" in look(LATE_S)
        assert look(LATE_S) == ""  # said once
    assert "repeat version" in look(LATE_S) and alias_holders(Registry())["champion"] == second


def test_a_challenger_that_waits_is_left_alone(redis: Redis, build: Build) -> None:
    climbed(redis, build)
    third = promote(build("three"), redis, Registry(), ACT).release
    look = looks(redis)
    assert look() == look(LATE_S) == look(LATE_S) == ""
    assert aliases.waiting_challenger() == third


def test_a_canary_that_steps_back_without_a_guard_waits_for_no_second_trial(
    redis: Redis, build: Build
) -> None:
    promote(build("one"), redis, Registry(), ACT)
    second = promote(build("two"), redis, Registry(), ACT).release
    now = control.start_canary(redis, control.present(redis), second, 10, "two-1", ACT, 600.0)
    control.rollback(redis, now, ACT)  # as the service does
    look = looks(redis)
    look()
    assert "repeat version" in look(LATE_S) and aliases.waiting_challenger() is None


def test_a_rollout_from_before_the_mark_is_taken_as_followed(redis: Redis, build: Build) -> None:
    promote(build("one"), redis, Registry(), ACT)
    redis.delete(FOLLOWED)
    look = looks(redis)
    assert look() == look(LATE_S) == "" and int(redis.get(FOLLOWED) or 0) == 1  # type: ignore[arg-type]
