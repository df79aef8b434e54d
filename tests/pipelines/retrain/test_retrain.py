"""A retrain ends with a challenger on trial or says why not, whatever killed the one before it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from redis import Redis
from shops.release import ACT, open_home, write_candidate

from feature_repo.clock import DAY_US, instant
from feature_repo.errors import BusyError
from feature_repo.events import SCHEMA
from feature_repo.files import reserved
from feature_repo.params import load, refuse_stale, shop
from feature_repo.places import CANDIDATE, EVENT_LOG, EVENTS, ITEMS, RETRAINED, REWRITING, VERDICT, at
from monitoring.alerting.troubles import not_retrained
from monitoring.experiment.guard import RolloutParams
from pipelines.ingest.shop import choose
from pipelines.release import rollout as canary
from pipelines.release.promote import promote
from pipelines.release.registry import Registry
from pipelines.retrain import retrain as job
from pipelines.retrain.refresh import RefreshParams, Trial
from pipelines.retrain.retrain import RetrainError
from serving.release import state

END = 1_772_400_000_000_000
PARAMS = RefreshParams(24.0, 600, 100, max_loss=0.01, max_narrowing=0.1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_registry: Path, redis_url: str) -> Path:
    """A shop with a champion; its pipeline is one stage, which brings the candidate that stands in `next`."""
    folder = open_home(tmp_path, monkeypatch, empty_registry, redis_url)
    dvc(folder, "init", "--no-scm", "-q")
    choose("simulated")
    for place in (EVENTS, ITEMS):
        at(place).parent.mkdir(parents=True, exist_ok=True)
    write_events(at(EVENTS), END)
    pq.write_table(pa.table({"item_id": ["item-0"]}), at(ITEMS))
    with Redis.from_url(redis_url) as redis:
        promote(write_candidate(folder, "one"), redis, Registry(), ACT)
    prepare(folder, "two")
    return folder


@pytest.fixture
def redis(home: Path, redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


def write_events(path: Path, newest: int) -> None:
    event: dict[str, Any] = {"event_id": "e", "event_ts": instant(newest), "created_ts": instant(newest)}
    event |= {"type": "product_viewed", "session_id": "s", "item_id": "item-0", "consent": True}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([event], SCHEMA), path)


def prepare(home: Path, content: str, passed: bool = True) -> None:
    """What the next `dvc repro` makes."""
    made = home / "next"
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(write_candidate(home, content), made)
    verdict = orjson.loads((home / VERDICT).read_bytes()) | {"passed": passed}
    (home / "verdict.json").write_bytes(orjson.dumps(verdict))
    gate = f"cp verdict.json {VERDICT} && exit {int(not passed)}"
    stages = {
        "gate": {"cmd": gate, "deps": ["verdict.json"], "outs": [str(VERDICT)]},
        "bundle": {
            "cmd": f"cp -r next {CANDIDATE}",
            "deps": ["next", str(VERDICT)],
            "outs": [str(CANDIDATE)],
        },
    }
    (home / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


def summary() -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((shop().run_dir() / RETRAINED).read_bytes())
    return found


def begun(home: Path, command: str) -> subprocess.Popen[bytes]:
    """A retrain that has come as far as the stage of this command, and stays there."""
    recipe = (home / "dvc.yaml").read_text()
    (home / "dvc.yaml").write_text(recipe.replace(command, f"touch begun; sleep 60; {command}"))
    process = subprocess.Popen([sys.executable, "-m", "pipelines", "retrain"], start_new_session=True)
    deadline = time.monotonic() + 60
    while not (home / "begun").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_the_candidate_of_new_data_goes_on_trial_and_asked_again_nothing_is_done_twice(
    home: Path, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state.present(redis).champion
    assert job.main() == 0
    found, told = state.present(redis), summary()
    assert found.champion == before and found.challenger and found.challenger.digest == told["candidate"]
    assert (told["outcome"], told["ndcg_at_12"], found.percent) == ("on trial", [0.3, 0.3], 10)
    assert "next: `endcap rollout status`" in capsys.readouterr().out
    assert job.main() == 0 and state.present(redis) == found


def test_one_that_was_killed_between_promotion_and_canary_is_finished_by_the_next(
    home: Path, redis: Redis
) -> None:
    dvc(home, "repro", "-q", "bundle")
    promote(at(CANDIDATE), redis, Registry(), ACT)
    assert state.present(redis).challenger is None
    assert job.main() == 0 and summary()["outcome"] == "on trial"


def test_the_gates_no_and_a_broken_stage_are_told_apart_and_the_champion_serves_on(
    home: Path, redis: Redis
) -> None:
    before = state.present(redis)
    prepare(home, "three", passed=False)
    assert job.main() == 1 and summary()["outcome"] == "refused by the gate"
    prepare(home, "four")
    (home / "dvc.yaml").write_text((home / "dvc.yaml").read_text().replace("cp -r next", "false"))
    assert job.main() == 1
    assert summary()["outcome"] == "failed" and "The champion serves on" in summary()["told"]
    assert state.present(redis) == before


def test_one_that_was_killed_at_work_is_told_by_the_alarm_and_finished_by_the_next(
    home: Path, redis: Redis
) -> None:
    recipe, process = (home / "dvc.yaml").read_text(), begun(home, "cp -r next")
    assert summary()["outcome"] == "at work" and not_retrained(shop().run_dir()) == []
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    with pytest.raises(ProcessLookupError):  # what it had started ends a little later
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    (trouble,) = not_retrained(shop().run_dir())
    assert trouble.told.startswith("retrain: killed; at work since 20") and trouble.next == "endcap retrain"
    (home / "dvc.yaml").write_text(recipe)
    assert job.main() == 0 and summary()["outcome"] == "on trial"
    assert not_retrained(shop().run_dir()) == []


def test_where_only_the_command_was_killed_its_dvc_is_waited_for_and_the_gate_said_nothing(
    home: Path, redis: Redis
) -> None:
    process = begun(home, "cp verdict.json")
    process.kill()
    process.wait()
    try:
        assert job.main() == 1 and summary()["outcome"] == "failed"
        assert "another one is at work on these files; wait for its end" in summary()["told"]
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_what_nobody_expected_is_an_outcome_too(
    home: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(EVENT_LOG).mkdir(parents=True, exist_ok=True)
    (at(EVENT_LOG) / "1-1.parquet").write_bytes(b"no parquet")
    with pytest.raises(Exception, match="parquet"):
        job.main()
    assert summary()["outcome"] == "failed" and "The champion serves on" in summary()["told"]


def test_without_anything_new_nothing_goes_on_trial(home: Path, redis: Redis) -> None:
    prepare(home, "one")
    assert job.main() == 0
    assert summary()["outcome"] == "nothing new" and state.present(redis).challenger is None


def test_one_at_a_time_and_never_into_the_canary_of_another(home: Path, redis: Redis) -> None:
    lock, told = shop().run_dir() / REWRITING, "`endcap retrain`: `endcap erase` is at work on the same files"
    with reserved(lock, "`endcap erase`"), pytest.raises(BusyError, match=f"{told}; allowed: one at a time"):
        job.main()
    promote(write_candidate(home, "by hand"), redis, Registry(), ACT)
    canary.begin(redis, load("rollout", RolloutParams), ACT)
    shutil.rmtree(home / CANDIDATE)
    with pytest.raises(RetrainError, match="on trial at 10 %; retrain when it is decided"):
        job.main()


@pytest.mark.parametrize("hours, days", [(0, 0), (23, 0), (49, 2), (-30, 0)])
def test_the_cuts_move_on_by_the_whole_days_that_have_come(home: Path, hours: int, days: int) -> None:
    before = shop()
    write_events(at(EVENT_LOG) / "0-9.parquet", END + hours * DAY_US // 24)
    assert job.new_days() == days
    for _ in range(2):  # a second run without more days moves nothing
        moved = job.advance(job.new_days())
    assert moved == shop() and (moved.test_from - before.test_from).days == days == moved.moved_days
    refuse_stale(moved)  # moved cuts are no disagreement with params.yaml


@pytest.mark.parametrize(
    "trial, trouble",
    [
        ((400, (0.20, 0.21), (-0.01, 0.03), (0.5, 0.5)), ""),
        ((400, (0.20, 0.199), (-0.01, 0.008), (0.5, 0.46)), ""),
        ((99, (0.20, 0.25), (0.03, 0.07), (0.5, 0.5)), "99 query points are too few"),
        ((400, (0.20, 0.19), (-0.03, 0.01), (0.5, 0.5)), "NDCG@12 0.1900 against the champion's 0.2000"),
        ((400, (0.20, 0.1985), (-0.003, -0.0001), (0.5, 0.5)), "NDCG@12 0.1985"),
        ((400, (0.20, 0.21), (0.0, 0.02), (0.5, 0.44)), "coverage 0.440 against the champion's 0.500"),
    ],
)
def test_a_refreshed_release_serves_only_where_it_is_not_worse(
    trial: tuple[int, Any, Any, Any], trouble: str
) -> None:
    queries, *measured = trial
    assert Trial(queries, instant(END), *measured).trouble(PARAMS).startswith(trouble or "")
    assert bool(Trial(queries, instant(END), *measured).trouble(PARAMS)) is bool(trouble)
