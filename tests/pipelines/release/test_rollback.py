"""Back to the release before: the pointer in Redis first, then the aliases, also after MLflow was away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from redis import Redis
from shops.release import ACT, Build, alias_holders

from pipelines.release import aliases
from pipelines.release import promote as promote_job
from pipelines.release import rollback as rollback_job
from pipelines.release.promote import promote
from pipelines.release.registry import Registry, RegistryError, store
from pipelines.release.rollback import rollback
from serving.release import state
from serving.release.state import RolloutError


def test_direct_replaces_the_champion_and_rollback_brings_it_back(redis: Redis, build: Build) -> None:
    registry = Registry()
    first = promote(build("one"), redis, registry, ACT).release
    second = promote(build("two"), redis, registry, ACT, direct=True)
    assert (second.role, second.replaced) == ("champion", first)
    assert alias_holders(registry)["previous"] == first
    back = rollback(redis, ACT)
    assert (back.champion, back.previous) == (first, second.release)
    aliases.follow(back)
    assert alias_holders(registry) == dict(champion=first, previous=second.release)
    assert [entry["what"] for entry in state.read_audit(redis)] == [
        "revert_to_previous",
        "install",
        "install",
    ]


def test_rollback_without_an_earlier_release_says_so(redis: Redis, build: Build) -> None:
    with pytest.raises(RolloutError, match="nothing was ever promoted"):
        rollback(redis, ACT)
    promote(build("one"), redis, Registry(), ACT)
    with pytest.raises(RolloutError, match="there is no earlier release"):
        rollback(redis, ACT)


def test_rollback_refuses_a_release_whose_folder_is_gone(redis: Redis, build: Build, home: Path) -> None:
    first = promote(build("one"), redis, Registry(), ACT).release
    second = promote(build("two"), redis, Registry(), ACT, direct=True).release
    shutil.rmtree(home / first.path)
    with pytest.raises(aliases.ReleaseError, match="is gone"):
        rollback(redis, ACT)
    found = state.present(redis)
    assert found.champion == second


def test_the_rollback_job_moves_pointer_and_aliases_and_prints_both_releases(
    redis: Redis, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    first = promote(build("one"), redis, Registry(), ACT).release
    second = promote(build("two"), redis, Registry(), ACT, direct=True).release
    rollback_job.main(why="customers complain")
    assert f"champion: {second.digest} -> {first.digest}" in capsys.readouterr().out
    assert alias_holders(Registry())["champion"] == first
    assert state.read_audit(redis)[0]["why"] == "customers complain"


def test_a_registry_that_cannot_be_reached_leaves_the_pointer_moved_and_is_repaired_later(
    redis: Redis, build: Build, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = promote(build("one"), redis, Registry(), ACT).release
    second = promote(build("two"), redis, Registry(), ACT, direct=True).release
    hidden = store().rename(store().with_suffix(".away"))
    store().mkdir()
    with pytest.raises(RegistryError, match=r"Redis still says what serves; `endcap promote --repair`"):
        rollback_job.main()
    found = state.present(redis)
    assert found.champion == first
    store().rmdir()
    hidden.rename(store())
    assert alias_holders(Registry())["champion"] == second
    promote_job.main(fix=True)
    assert first.digest in capsys.readouterr().out
    assert alias_holders(Registry()) == dict(champion=first, previous=second)
