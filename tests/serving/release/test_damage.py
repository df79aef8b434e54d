"""Files that are damaged under a running service: it never stands without a release."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from shops import tiny_bundle
from shops.release import ACT
from shops.stand import damaged
from shops.storefront import release_of

from serving.rankers import forest
from serving.release import bundle, state, workers
from serving.release.state import Release

if TYPE_CHECKING:
    from shops.stand import Stand

pytest_plugins = ("shops.stand",)

pytestmark = pytest.mark.fault
WORKERS = 1  # each takes seconds to start again
STOCK = 'endcap_rankers_loaded_total{kind="StockForest"}'


@pytest.fixture(scope="module")
def releases(stand: Stand) -> tuple[Release, Release]:
    """`old` was replaced by `new`, which serves."""
    old, new = stand.release("old"), stand.release("new", "--direct")
    stand.serve()
    return old, new


def replaced(stand: Stand) -> None:
    """kill -9 of the worker, and wait for its successor."""
    before = stand.pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    names = {report.worker for report in workers.read(stand.redis)}

    def back() -> bool:
        told = {report.worker for report in workers.read(stand.redis) if report.champion}
        return bool(told - names) and not stand.pids() & before and stand.ready()

    stand.until(back)


def test_a_damaged_object_file_kills_nobody_and_is_made_anew(
    stand: Stand, releases: tuple[Release, Release]
) -> None:
    compiled = forest.compiled_path(stand.home / releases[1].path / "ranker.txt")
    right = compiled.read_bytes()
    for content in (right[: len(right) // 2], b"", right[:999] + b"\xff" * 400 + right[1399:]):
        compiled.write_bytes(content)
        replaced(stand)
        assert stand.answering() == {releases[1].digest}
        assert forest.sealed(compiled) and len(compiled.read_bytes()) == len(right)
    assert f"{compiled} is not what was compiled" in stand.log.read_text()
    assert STOCK not in stand.metric("endcap_rankers_loaded_total")


def test_trees_that_cannot_be_compiled_are_served_by_lightgbm_and_counted(
    stand: Stand, releases: tuple[Release, Release]
) -> None:
    cache = stand.home / "run" / "cache"
    hidden = cache.rename(cache.with_name("hidden"))
    cache.write_text("a file where a folder should be")
    try:
        replaced(stand)
        assert stand.answering() == {releases[1].digest}
        assert stand.metric("endcap_rankers_loaded_total")[STOCK] == 1
    finally:
        cache.unlink()
        hidden.rename(cache)


def test_a_challenger_with_a_damaged_object_file_harms_no_champion(
    stand: Stand, releases: tuple[Release, Release]
) -> None:
    other = tiny_bundle.make(stand.home, n=6, seed=1)
    assert isinstance(forest.load(other / "ranker.txt"), forest.Forest)
    compiled = forest.compiled_path(other / "ranker.txt")
    compiled.write_bytes(compiled.read_bytes()[:1000])
    before, trial = stand.pids(), release_of(stand.home, other)
    canary = state.start_canary(stand.redis, stand.state(), trial, 50, "trial", ACT)
    stand.until(lambda: {r.challenger for r in workers.read(stand.redis)} == {trial.digest})
    assert releases[1].digest in stand.answering() and stand.pids() == before
    state.rollback(stand.redis, canary, ACT)


def test_the_version_of_a_dead_worker_goes_with_it(stand: Stand, releases: tuple[Release, Release]) -> None:
    dead = stand.pids().pop()
    os.kill(dead, signal.SIGKILL)
    version = state.install(stand.redis, releases[1], ACT).version
    stand.until(lambda: [r.version for r in workers.read(stand.redis)] == [version])
    assert stand.metric("endcap_rollout_version") == {"endcap_rollout_version": version}


def test_a_worker_that_starts_with_a_damaged_champion_serves_the_next_best_until_it_is_repaired(
    stand: Stand, releases: tuple[Release, Release]
) -> None:
    old, new = releases
    state.install(stand.redis, old, ACT)
    state.install(stand.redis, new, ACT)
    third = stand.home / "data" / "bundles"
    (other,) = [
        p for p in third.glob("*/") if bundle.DIGEST.fullmatch(p.name) and p.name not in names(old, new)
    ]
    with damaged(stand.home / new.path / "user_tower.onnx"):
        with damaged(stand.home / old.path / "als_items.npy"):
            replaced(stand)
            assert stand.answering() == {other.name}
        replaced(stand)
        assert stand.answering() == {old.digest}
        assert stand.metric("endcap_release_stand_in") == {"endcap_release_stand_in": 1.0}
        assert f"champion {old.digest} stands in for {new.digest}" in stand.log.read_text()
        told = stand.endcap("status", status=1)
        assert f"refuses {new.digest}: " in told and "user_tower.onnx" in told
    stand.until(lambda: {r.champion for r in workers.read(stand.redis)} == {new.digest})
    assert stand.answering() == {new.digest}
    assert stand.metric("endcap_release_stand_in") == {"endcap_release_stand_in": 0.0}


def test_only_where_nothing_on_disk_is_sound_there_is_a_503_with_its_reason(
    stand: Stand, releases: tuple[Release, Release]
) -> None:
    bundles = stand.home / "data" / "bundles"
    hidden: Path = bundles.rename(bundles.with_name("hidden"))
    before = stand.pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    def up() -> bool:
        return any(r.refused for r in workers.read(stand.redis)) and not stand.pids() & before

    stand.until(up)
    answer = httpx.post(f"{stand.url}/v1/recommend", json={"surface": "homepage_hero"}, timeout=20)
    assert answer.status_code == 503 and answer.json()["error"]["reason"]
    hidden.rename(bundles)
    stand.until(lambda: {r.champion for r in workers.read(stand.redis)} == {releases[1].digest})
    assert stand.answering() == {releases[1].digest}


def names(*releases: Release) -> set[str]:
    return {release.digest for release in releases}
