"""Two who change a release at the same moment: exactly one wins, the other says why, both are on record."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from shops.release import ACT, Build, alias_holders

from feature_repo.params import load
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.guard import RolloutParams
from monitoring.experiment.watch import Guard
from pipelines.release import aliases
from pipelines.release import promote as promotion
from pipelines.release import rollout as control
from pipelines.release.aliases import ReleaseError
from pipelines.release.assurance import conclude
from pipelines.release.promote import promote
from pipelines.release.registry import Registry
from pipelines.release.rollback import rollback
from serving.release import state
from serving.release.state import Act, RolloutConflict, RolloutState

GUARD = Act("guard", "a test", ACT.now_us)


@pytest.fixture
def canary(redis: Redis, build: Build) -> RolloutState:
    promote(build("one"), redis, Registry(), ACT)
    promote(build("two"), redis, Registry(), ACT)
    return control.begin(redis, load("rollout", RolloutParams), ACT)


def meet(patch: pytest.MonkeyPatch) -> None:
    """Whoever is about to write the state waits for the other one, who read the same."""
    barrier, commit, seen = threading.Barrier(2), state._commit, threading.local()

    def together(*args: Any) -> RolloutState:
        if not getattr(seen, "met", False):
            seen.met = True
            barrier.wait(20)
        return commit(*args)

    patch.setattr(state, "_commit", together)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What each gives, or the error that it raises."""

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))


def repeated(redis: Redis) -> bool:
    """Whether the aliases repeat what serves."""
    found, held = state.present(redis), alias_holders(Registry())
    named = {"champion": found.champion, "challenger": found.challenger, "previous": found.previous}
    return held == {alias: release for alias, release in named.items() if release}


def changes(redis: Redis) -> list[str]:
    """What was done, newest first, as versions and words of the audit."""
    return [f"{entry['version']} {entry['what']}" for entry in state.read_audit(redis) if entry["version"]]


def test_of_two_guards_with_one_verdict_one_changes_the_state_and_the_other_sees_it(
    redis: Redis, canary: RolloutState, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.publish_health(redis, "challenger", requests=100, errors=50, empty=0, p99_ms=5.0)
    given = load("rollout", RolloutParams), load("feedback", FeedbackParams)
    guards = [Guard(redis, *given, partial(aliases.follow, redis=redis)) for _ in range(2)]
    with monkeypatch.context() as patch:
        meet(patch)
        looks = at_once(*(partial(guard.look, ACT.now_us) for guard in guards))
    found = state.present(redis)
    assert found.version == canary.version + 1 and found.challenger is None
    assert sorted(look.state.version for look in looks) == [canary.version, found.version]
    assert changes(redis)[0] == f"{found.version} rollback" and changes(redis)[1].endswith("start_canary")
    assert [guard.look(ACT.now_us) for guard in guards] == [None, None]
    assert repeated(redis)


def test_of_two_people_who_advance_one_step_one_does_and_the_other_is_told(
    redis: Redis, canary: RolloutState, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(monkeypatch)
    further = partial(control.further, redis, load("rollout", RolloutParams), ACT, None)
    found = at_once(further, further)
    (told,) = [one for one in found if isinstance(one, RolloutConflict)]
    assert "changed by somebody else while `advance` was under way" in str(told)
    assert state.present(redis).percent == 50 and changes(redis)[0] == f"{canary.version + 1} advance"


def test_a_guard_that_advances_and_a_person_who_stops_leave_the_canary_stopped(
    redis: Redis, canary: RolloutState, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    meet(monkeypatch)
    further = partial(control.further, redis, load("rollout", RolloutParams), GUARD, None)
    stopped = partial(control.stop, redis, ACT, lambda line, _: said.append(line))
    moved, code = at_once(further, stopped)
    assert code == 0 and state.present(redis).challenger is None and repeated(redis)
    assert isinstance(moved, RolloutConflict) or changes(redis)[:2] == [
        f"{canary.version + 2} rollback",
        f"{canary.version + 1} advance",
    ]


def test_of_two_promoters_the_second_changes_nothing_and_says_why(
    redis: Redis, build: Build, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(build("one"), redis, Registry(), ACT)
    inside, go = threading.Event(), threading.Event()
    assure = promotion.assure

    def slow(release: Any) -> None:
        inside.set()
        go.wait(20)
        assure(release)

    monkeypatch.setattr(promotion, "assure", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(promote, build("two"), redis, Registry(), ACT)
        assert inside.wait(20)
        before = alias_holders(Registry())
        with pytest.raises(ReleaseError, match="another promotion is under way; nothing was changed"):
            promote(build("three"), redis, Registry(), ACT, direct=True)
        assert alias_holders(Registry()) == before
        go.set()
        done = first.result(20)
    assert aliases.waiting_challenger() == done.release
    monkeypatch.setattr(promotion, "assure", assure)
    promote(build("three"), redis, Registry(), ACT)  # one after the other, as ever


def test_a_promoter_and_a_rollback_at_once_one_wins_and_the_aliases_repeat_what_serves(
    redis: Redis, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(build("0"), redis, Registry(), ACT)
    for turn in range(1, 6):
        promote(build(f"{turn}"), redis, Registry(), ACT, direct=True)
        before, candidate = state.present(redis), build(f"{turn} next")
        with monkeypatch.context() as patch:
            meet(patch)
            promoted, back = at_once(
                partial(promote, candidate, redis, Registry(), ACT, direct=True),
                lambda: conclude(redis, rollback(redis, ACT), lambda _: None),
            )
        (told,) = [one for one in (promoted, back) if isinstance(one, Exception)]
        assert isinstance(told, RolloutConflict)
        found = state.present(redis)
        assert found.version == before.version + 1
        if told is back:
            assert f"somebody made {promoted.release.digest} the champion meanwhile" in str(told)
            assert found.champion == promoted.release
        else:
            assert "changed by somebody else while `install` was under way" in str(told)
            assert found.champion == before.previous
        assert repeated(redis)


def test_a_challenger_whose_champion_was_taken_back_meanwhile_does_not_wait(
    redis: Redis, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(build("one"), redis, Registry(), ACT)
    promote(build("two"), redis, Registry(), ACT, direct=True)
    assure = promotion.assure

    def overtaken(release: Any) -> None:
        assure(release)
        conclude(redis, rollback(redis, ACT), lambda _: None)

    monkeypatch.setattr(promotion, "assure", overtaken)
    with pytest.raises(RolloutConflict, match=r"was judged against another\. Promote it again"):
        promote(build("three"), redis, Registry(), ACT)
    assert aliases.waiting_challenger() is None and repeated(redis)
