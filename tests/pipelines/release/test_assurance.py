"""How long a change waits for the workers, what it then says, and which bundles it keeps."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from shops.release import ACT, Build

from feature_repo.files import sweep, whole
from pipelines.release.admission import install_bundle
from pipelines.release.aliases import ReleaseError
from pipelines.release.assurance import ReleaseParams, confirm, prune
from serving.release import bundle, state, workers
from serving.release.state import Release, RolloutState
from serving.release.workers import Report

pytestmark = pytest.mark.fault
OLD, NEW, TRIAL = (Release(digit * 16, f"data/bundles/{digit * 16}") for digit in "abc")
PARAMS = ReleaseParams(confirm_s=30.0, bundles_kept=2)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def now(redis: Redis) -> RolloutState:
    """Version 2: `NEW` took the place of `OLD`."""
    state.install(redis, OLD, ACT)
    return state.install(redis, NEW, ACT)


class Waiting:
    """A clock that only `sleep` moves; at each of its seconds something may happen in the shop."""

    def __init__(self, redis: Redis, **happens: Report | None) -> None:
        self.redis, self.now, self.happens = redis, 0.0, happens

    def sleep(self, seconds: float) -> None:
        before, self.now = self.now, self.now + seconds
        for name, report in self.happens.items():
            if before < float(name.lstrip("s")) <= self.now:
                workers.write(self.redis, report, 60) if report else self.redis.flushall()

    def confirm(self, wanted: RolloutState) -> str:
        return confirm(self.redis, wanted, PARAMS, lambda: self.now, self.sleep)


def test_it_waits_for_the_last_worker(redis: Redis, now: RolloutState) -> None:
    one, two = Report("m:1", 2, NEW.digest), Report("m:2", 1, OLD.digest, loading=NEW.digest)
    for report in (one, two):
        workers.write(redis, report, 60)
    waiting = Waiting(redis, s7=replace(two, version=2, champion=NEW.digest, loading=""))
    assert waiting.confirm(now) == "served by 2 of 2 workers"
    assert 7 <= waiting.now < 8


def test_a_worker_that_never_acts_is_named_after_the_wait(redis: Redis, now: RolloutState) -> None:
    workers.write(redis, Report("m:1", 1, OLD.digest, loading=NEW.digest), 60)
    waiting = Waiting(redis)
    with pytest.raises(ReleaseError, match=f"0 of 1 serve version 2 after 30 s: m:1 serves {OLD.digest}"):
        waiting.confirm(now)
    assert 30 <= waiting.now < 31


def test_a_refusal_is_told_at_once(redis: Redis, now: RolloutState) -> None:
    workers.write(redis, Report("m:1", 2, OLD.digest, refused={NEW.digest: "ease.npz: sha256 is"}), 60)
    waiting = Waiting(redis)
    with pytest.raises(ReleaseError, match=f"refuses {NEW.digest}: ease.npz: sha256 is"):
        waiting.confirm(now)
    assert waiting.now == 0


def test_workers_that_die_of_the_new_release_are_no_absent_service(redis: Redis, now: RolloutState) -> None:
    assert "nothing to wait for" in Waiting(redis).confirm(now)
    workers.write(redis, Report("m:1", 1, OLD.digest), 60)
    with pytest.raises(ReleaseError, match="none of 1 reports any more"):
        Waiting(redis, s2=None).confirm(now)


def test_a_worker_that_is_further_on_has_passed(redis: Redis, now: RolloutState) -> None:
    workers.write(redis, Report("m:1", 3, OLD.digest), 60)
    assert Waiting(redis).confirm(now) == "served by 1 of 1 workers"


def test_a_silent_worker_is_forgotten_with_its_name(redis: Redis) -> None:
    workers.write(redis, Report("m:1"), 60)
    workers.write(redis, Report("m:2"), 60)
    redis.delete(workers.WORKER + "m:1")  # as its expiry does
    assert [report.worker for report in workers.read(redis)] == ["m:2"]
    assert redis.smembers(workers.WORKERS) == {b"m:2"}
    workers.write(redis, Report("m:3"), 0.05)
    assert 0 < redis.pttl(workers.WORKER + "m:3") <= 50 and redis.ttl(workers.WORKERS) > 0
    workers.leave(redis, "m:2")
    assert redis.smembers(workers.WORKERS) == {b"m:3"}


def test_the_newest_bundles_and_those_that_are_named_are_kept(redis: Redis, build: Build, home: Path) -> None:
    made = []
    for age, content in enumerate("abcdefg"):
        made.append(install_bundle(build(content)))
        os.utime(home / made[-1].path, (10_000 + age,) * 2)
    first = state.install(redis, made[0], ACT)
    second = state.install(redis, made[1], ACT)
    assert first.champion == made[0] and second.previous == made[0]
    state.start_canary(redis, second, made[2], 10, "trial", ACT)
    assert prune(redis, [made[3]], PARAMS.bundles_kept) == [made[4].digest]
    left = {path.name for path in (home / "data" / "bundles").iterdir()}
    assert left == {"candidate", *(release.digest for release in made if release != made[4])}
    assert prune(redis, [made[3]], PARAMS.bundles_kept) == []


def test_what_a_killed_installation_left_is_swept_and_a_living_one_is_not(build: Build, home: Path) -> None:
    bundles, ended = home / "data" / "bundles", subprocess.Popen(["true"])
    ended.wait()
    folder = build("one")
    left = bundles / f".0123456789abcdef.{ended.pid}"
    left.mkdir()
    (left / "ease.npz").write_text("half")
    with whole(bundles / "living") as draft:
        draft.write_text("being written")
        os.utime(draft, (0, 0))
        assert sweep(bundles) == []  # of the dead one something changed a moment ago
        for part in (left / "ease.npz", left):
            os.utime(part, (time.time() - 3600,) * 2)
        install_bundle(folder)
        assert not left.exists() and draft.exists()


def test_a_damaged_copy_is_replaced_by_the_candidate_it_came_from(build: Build, home: Path) -> None:
    folder = build("one")
    release = install_bundle(folder)
    for damage in ((home / release.path / "ease.npz").unlink, partial(write, home / release.path)):
        damage()
        assert install_bundle(folder) == release
        bundle.verify(home / release.path)
        assert not list((home / "data" / "bundles").glob(".*"))


def write(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


def test_the_audit_is_bounded(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "AUDIT_KEPT", 200)
    now: Any = state.install(redis, OLD, ACT)
    for _ in range(200):
        state.record(redis, "rules_published", ACT)
        now = state.revert(redis, now, NEW if now.champion == OLD else OLD, ACT)
    assert 200 <= redis.xlen(state.AUDIT) < 301  # Redis drops whole nodes of 100
