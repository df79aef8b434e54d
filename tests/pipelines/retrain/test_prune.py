"""A year of retrains fits a disk: what nobody can go back to goes, what somebody can is whole."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dvc.repo import Repo
from redis import Redis
from shops.release import ACT, alias_holders, open_home, report, write_candidate

from feature_repo.clock import DAY_US, HOUR_MS, instant
from feature_repo.offline import item_log
from feature_repo.places import CANDIDATE, EVENT_LOG, EVENTS, ITEM_LOG, ITEMS, VERDICT, at
from pipelines.ingest.shop import choose
from pipelines.protocol.metrics import fingerprint
from pipelines.release import aliases
from pipelines.release.admission import locks
from pipelines.release.promote import promote
from pipelines.release.registry import Registry, store
from pipelines.release.rollback import rollback
from pipelines.retrain import leftovers as policy
from pipelines.retrain import prune
from pipelines.retrain import retrain as job
from pipelines.retrain.dvc_cache import size
from pipelines.retrain.land import Landed
from serving.release import state
from training.tracking import evaluated, tracked

DAY_MS = 24 * HOUR_MS
FITTED = 40_000  # bytes of a day's model


class Held(NamedTuple):
    """What a shop takes: bytes by place, rows by table, keys of Redis."""

    bundles: int
    cache: int
    artefacts: int
    store: int
    landed: int
    rows: dict[str, int]
    keys: int


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_registry: Path, redis_url: str) -> Path:
    """A shop that retrains daily; its pipeline brings the candidate of `next` and what was fitted for it."""
    folder = open_home(tmp_path, monkeypatch, empty_registry, redis_url)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["release"]["bundles_kept"] = 2
    params["prune"] = {"runs_kept": 3, "landed_days": 3}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(folder)  # DVC looks for dvc.yaml there
    Repo.init(str(folder), no_scm=True).close()
    choose("simulated")
    at(ITEMS).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"item_id": ["item-0"]}), at(ITEMS))

    def reproduce(target: str, log: Path) -> None:
        with Repo(str(folder)) as repo:
            repo.reproduce(target)

    monkeypatch.setattr(job, "reproduce", reproduce)
    monkeypatch.setattr(job, "new_days", lambda: 0)
    return folder


@pytest.fixture
def redis(home: Path, redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


def prepare(home: Path, day: int, patch: pytest.MonkeyPatch) -> None:
    """What a day brings: events, fits with their runs, an evaluation, a candidate; ready for `dvc repro`."""
    at(EVENTS).write_bytes(b"events of day %d" % day)
    fitted = home / "fitted.bin"
    fitted.write_bytes(os.urandom(FITTED))
    with tracked("als", {"day": day}, [at(EVENTS)], "ranking_v1") as run:
        run.metrics({"loss": float(day)})
        run.artifact(fitted)
    ndcg = 0.3 + day / 1000
    evaluated(fingerprint(report(ndcg))).metrics({"ndcg_at_12": ndcg})
    shutil.rmtree(home / "next", ignore_errors=True)
    shutil.copytree(write_candidate(home, f"day {day}", ndcg), home / "next")
    shutil.copy(home / VERDICT, home / "verdict.json")
    made = f"mkdir -p model && cp fitted.bin model/ && cp verdict.json {VERDICT} && cp -r next {CANDIDATE}"
    bundle = {
        "cmd": made,
        "deps": ["fitted.bin", "verdict.json", "next"],
        "outs": ["model", str(VERDICT), str(CANDIDATE)],
    }
    (home / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"bundle": bundle}}))

    def landed(*_: Any) -> Landed:
        file = at(EVENT_LOG) / f"{day * DAY_MS}-{(day + 1) * DAY_MS}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(1_000))
        return Landed(1, instant(0), None)

    patch.setattr(job, "land", landed)


def promoted(redis: Redis) -> None:
    """The canary goes all the way."""
    found = state.present(redis)
    found = state.promote_champion(redis, state.advance(redis, found, 100, ACT), ACT)
    aliases.follow(found)


def held(home: Path, redis: Redis) -> Held:
    with closing(sqlite3.connect(store())) as database:
        tables = (
            "runs",
            "metrics",
            "params",
            "tags",
            "inputs",
            "datasets",
            "model_versions",
            "model_version_tags",
        )
        rows = {name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    run = store().parent
    return Held(
        size(home / "data/bundles"),
        size(home / ".dvc/cache"),
        size(run / "mlartifacts"),
        store().stat().st_size,
        size(at(EVENT_LOG)),
        rows,
        redis.dbsize(),  # type: ignore[arg-type]
    )


def test_after_thirty_retrains_disk_redis_and_mlflow_hold_what_they_held_after_ten_and_rollback_works(
    home: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = None
    for day in range(30):
        prepare(home, day, monkeypatch)
        if day == 0:
            with Repo(str(home)) as repo:
                repo.reproduce("bundle")
            promote(at(CANDIDATE), redis, Registry(), ACT)
            continue
        assert job.main() == 0
        if day % 5 != 4:  # every fifth is rolled back: what it leaves is no champion's
            promoted(redis)
        else:
            aliases.follow(state.rollback(redis, state.present(redis), ACT))
        earlier = held(home, redis) if day == 9 else earlier
    assert earlier is not None
    now = held(home, redis)
    assert now.keys == earlier.keys and now.rows == earlier.rows and now.landed == earlier.landed
    for name in ("bundles", "cache", "artefacts", "store"):
        assert getattr(now, name) <= 1.02 * getattr(earlier, name), name
    found = state.present(redis)
    assert found.previous is not None
    evaluation = Registry().find(found.previous.digest)
    assert evaluation and evaluation.run
    assert [fit.model for fit in Registry().fits(evaluation.run)] == ["als"]
    # The release that a rollback goes to can be made again from the cache, too.
    model = (home / "model/fitted.bin").read_bytes()
    shutil.copy(locks() / f"{found.previous.digest}.lock", home / "dvc.lock")
    with Repo(str(home)) as repo:
        repo.checkout(force=True)
    assert (home / "model/fitted.bin").read_bytes() != model
    assert orjson.loads((home / CANDIDATE / "manifest.json").read_bytes())["digest"] == found.previous.digest
    back = rollback(redis, ACT)
    aliases.follow(back)
    assert back.champion == found.previous == alias_holders(Registry())["champion"]


def said_daily(days: int) -> pa.Table:
    """An item's price of each day."""
    notes = [
        {"entry": f"{day}-0", "item_id": "a", "event_ts": instant(day * DAY_US)}
        | {"created_ts": instant(day * DAY_US), "said": orjson.dumps({"price": day}).decode()}
        for day in range(days)
    ]
    return pa.Table.from_pylist(notes, item_log.SCHEMA)


def test_a_dry_run_tells_what_would_go_with_sizes_and_leaves_it(
    home: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job, "_tidied", lambda redis: "")
    for day in range(6):
        prepare(home, day, monkeypatch)
        with Repo(str(home)) as repo:
            repo.reproduce("bundle")
        promote(at(CANDIDATE), redis, Registry(), ACT, direct=True)
        job.land()  # type: ignore[call-arg]
    monkeypatch.setattr(policy, "SMALL", 3)
    prices = at(ITEM_LOG) / "1.0-9.0.parquet"
    prices.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(said_daily(9), prices)
    before, written = held(home, redis), prices.read_bytes()
    prune.main(dry_run=True)
    told = capsys.readouterr().out
    assert held(home, redis) == before and prices.read_bytes() == written
    assert "items: 1, " in told
    assert "bundles: 4, " in told and "runs: " in told and "cache: " in told and "landed: " in told
    assert "would go: " in told
    prune.main()
    assert "removed: " in capsys.readouterr().out
    left = [f"{day}-0" for day in (4, 5, 6, 7, 8)]  # the newest of before, too
    assert pq.read_table(prices)["entry"].to_pylist() == left
    prune.main()
    assert capsys.readouterr().out == "removed: 0 things, 0.0 MB\n"


def test_what_aliases_name_stays_where_redis_is_empty(
    home: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for day in range(5):
        prepare(home, day, monkeypatch)
        with Repo(str(home)) as repo:
            repo.reproduce("bundle")
        made.append(promote(at(CANDIDATE), redis, Registry(), ACT, direct=True).release)
    aliases.follow(replace(state.present(redis), champion=made[0], previous=made[1]))
    redis.delete(state.ROLLOUT)
    gone = {one.name for one in policy.leftovers(redis, remove=True) if one.store == "bundles"}
    assert gone == {made[2].digest}
    assert all((home / release.path).exists() for release in (made[0], made[1], made[3], made[4]))


def test_a_prune_that_was_killed_halfway_through_the_runs_is_finished_by_the_next(
    home: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(4):
        prepare(home, day, monkeypatch)
        with Repo(str(home)) as repo:
            repo.reproduce("bundle")
        promote(at(CANDIDATE), redis, Registry(), ACT, direct=True)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.retrain.mlflow_store._collect", killed)
        with pytest.raises(KeyboardInterrupt):
            list(policy.leftovers(redis, remove=True))
    assert any(one.store == "runs" for one in policy.leftovers(redis, remove=False))
    list(policy.leftovers(redis, remove=True))
    rows = held(home, redis).rows
    assert rows["runs"] == 6 and rows["model_versions"] == 3  # three evaluations with a fit each
    assert not list(policy.leftovers(redis, remove=False))
