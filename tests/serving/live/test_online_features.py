"""Online reads: one round trip gives what stock Feast gives, and the item matrix follows the changes."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore
from feast.repo_operations import get_repo_files
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from shops.small import ITEMS, START, open_home, random_events, write_raw

from feature_repo.assemble.matrix import ACTIVITY
from feature_repo.clock import DAY_US, instant
from feature_repo.errors import FeatureError
from feature_repo.features import store
from feature_repo.features.catalogue import DECLARED
from feature_repo.features.stored import ITEM_ACTIVITY
from feature_repo.offline.build import main as features
from feature_repo.offline.timeline import historical, matrix_at
from feature_repo.online import changes
from feature_repo.online.rows import OnlineView, read_rows, write_newer
from pipelines.stream.materialize import materialize
from serving.live.online_features import OnlineFeatures
from serving.types import NO_ROWS, VisitorRows

EVENTS = random_events(seed=8, count=700)
CATALOGUE = [*ITEMS, "untouched", "not in the catalogue"]
NOW = EVENTS[-1]["event_ts"] + 1


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = open_home(tmp_path_factory.mktemp("shop"), patch)
        write_raw(folder, EVENTS)
        features()
        yield folder


@pytest.fixture
def online(home: Path, redis_url: str) -> Iterator[tuple[Redis, OnlineFeatures]]:
    with Redis.from_url(redis_url) as redis:
        materialize(redis, store.open_store(redis_url), instant(NOW), 100, fresh=False)
        reader = OnlineFeatures(redis_url, CATALOGUE)
        reader.load_items()
        yield redis, reader


def test_a_charge_that_redis_refuses_costs_no_rows(online: tuple[Redis, OnlineFeatures]) -> None:
    """A primary without replicas may refuse writes (min-replicas-to-write) and still be read."""
    refused = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"
    online[0].config_set("min-replicas-to-write", 1)
    try:
        rows = asyncio.run(online[1].read("user 1", "session 1", NOW, refused))
    finally:
        online[0].config_set("min-replicas-to-write", 0)
    assert rows.user and rows.session and rows.charged is None


@pytest.mark.parametrize("declared", DECLARED, ids=lambda d: d.name)
def test_raw_rows_equal_those_of_stock_feast_column_by_column(
    online: tuple[Redis, OnlineFeatures], redis_url: str, declared: Any
) -> None:
    opened = store.open_store(redis_url)
    noun = declared.key.removesuffix("_id")
    entities = [f"{noun} {i}" for i in range(8)]
    raw = read_rows(online[0], OnlineView(declared), entities)
    names = [c.name for c in declared.columns]
    asked = [f"{declared.name}:{name}" for name in names]
    answer = opened.get_online_features(asked, [{declared.key: e} for e in entities]).to_dict()
    assert any(row is not None for row in raw)
    for i, found in enumerate(raw):
        row = found[1] if found else dict.fromkeys(names)
        assert row == {name: answer[name][i] for name in names}


def test_a_request_costs_one_read_per_id(online: tuple[Redis, OnlineFeatures]) -> None:
    def reads() -> int:
        stats: Any = online[0].info("commandstats")
        return stats.get("cmdstat_hmget", {"calls": 0})["calls"]

    reader, before = online[1], reads()
    user, session, user_ts, session_ts, charged = asyncio.run(reader.read("user 1", "session 1", NOW))
    assert reads() - before == 2 and charged is None
    assert user and session and user["recent_items"] and session["started_ts"] >= START
    assert user["at"] <= user_ts < NOW and session["started_ts"] <= session_ts < NOW


def test_unknown_absent_and_outdated_rows_are_none(online: tuple[Redis, OnlineFeatures]) -> None:
    async def reads() -> list[VisitorRows]:
        absent, late, outdated = ("nobody", "none"), ("user 1", "session 1"), ("user 1", None)
        days = ((absent, 0), ((None, None), 0), (outdated, 366), (late, 3))
        return [await online[1].read(*asked, NOW + past * DAY_US) for asked, past in days]

    *nothing, later = asyncio.run(reads())
    assert nothing == [NO_ROWS] * 3
    assert later.user is not None and later.session is None and later.session_ts == 0


@pytest.mark.parametrize("declared", [d for d in DECLARED if d.max_age_days], ids=lambda d: d.name)
def test_a_row_is_read_up_to_its_age_limit_and_not_a_microsecond_longer(
    online: tuple[Redis, OnlineFeatures], home: Path, declared: Any
) -> None:
    view = OnlineView(declared)
    entity = f"{declared.key.removesuffix('_id')} 1"
    raw: Any = online[0].hmget(view.key(entity), view.fields)
    stored = view.decode(raw)
    assert stored is not None
    limit = stored[0] + declared.max_age_days * DAY_US
    assert view.fresh(raw, limit) == stored and view.fresh(raw, limit + 1) is None
    instants = [instant(limit), instant(limit + 1)]
    asked = pd.DataFrame({declared.key: [entity] * 2, "event_timestamp": instants})
    service = "items" if declared.key == "item_id" else "visitor"
    if service == "visitor":
        asked[({"user_id", "session_id"} - {declared.key}).pop()] = None
    offline = historical(asked, service)[declared.name]
    assert offline[0] is not None and offline[1] is None


def test_an_item_that_nobody_touched_for_too_long_is_forgotten_at_the_instant_of_the_request(
    online: tuple[Redis, OnlineFeatures],
) -> None:
    matrix = online[1].matrix
    at = matrix.activity["at"]
    limit = int(at[at > 0].min()) + ITEM_ACTIVITY.max_age_days * DAY_US
    assert matrix.as_of(limit) is matrix
    oldest, later = int(np.where(at > 0, at, limit).argmin()), matrix.as_of(limit + 1)
    assert later is not matrix and later.activity["at"][oldest] == 0 and matrix.activity["at"][oldest] > 0
    assert later.newest() == matrix.newest() and later.ids is matrix.ids


def test_the_online_matrix_equals_the_offline_one(online: tuple[Redis, OnlineFeatures], home: Path) -> None:
    matrix, offline = online[1].matrix, matrix_at(CATALOGUE, NOW)
    for name in ACTIVITY:
        np.testing.assert_array_equal(matrix.activity[name], offline.activity[name], name)
    for name in ("price", "margin", "stock", "available_from", "category", "brand", "price_band"):
        np.testing.assert_array_equal(getattr(matrix, name), getattr(offline, name), name)


def test_a_refresh_reads_the_changed_rows_and_no_others(online: tuple[Redis, OnlineFeatures]) -> None:
    redis, reader = online
    matrix = reader.matrix
    assert reader.refresh() == 0 and reader.matrix is matrix
    view = OnlineView(ITEM_ACTIVITY)
    row = {**dict.fromkeys(ACTIVITY, 0), "at": NOW, "first_ts": START, "views_24h": 7.5}
    row = {c.name: float(row[c.name]) if c.dtype == "float64" else row[c.name] for c in ITEM_ACTIVITY.columns}
    before = {name: column.copy() for name, column in matrix.activity.items()}
    changes.announce(redis, write_newer(redis, view, [("item 3", NOW, row), ("not sold here", NOW, row)]))
    assert reader.refresh() == 1
    fresh = reader.matrix
    assert fresh.activity["views_24h"][3] == 7.5 and fresh.activity["at"][3] == NOW
    others = np.arange(len(CATALOGUE)) != 3
    for name in ACTIVITY:
        np.testing.assert_array_equal(fresh.activity[name][others], before[name][others])
        np.testing.assert_array_equal(matrix.activity[name], before[name], "the snapshot before")
    assert fresh.price is matrix.price and fresh.row is matrix.row
    assert reader.refresh() == 0 and reader.matrix is fresh


def test_a_reader_sees_no_row_of_two_refreshes(online: tuple[Redis, OnlineFeatures]) -> None:
    """Every refresh writes one number into all columns of every row; a request must never see two."""
    redis, reader = online
    view, rounds = OnlineView(ITEM_ACTIVITY), 60
    dtypes = {c.name: float if c.dtype == "float64" else int for c in ITEM_ACTIVITY.columns}
    mixed: list[Any] = []
    seen: set[float] = set()

    def request() -> None:
        while not done.is_set():
            matrix = reader.matrix
            for _ in range(20):  # one request reads its columns one after the other
                block = np.stack([matrix.activity[name][:12] for name in ACTIVITY])
                seen.add(float(block[0, 0]))
                if not (block == block[0, 0]).all():
                    mixed.append(block)

    def write(number: int) -> None:
        row = {name: kind(number) for name, kind in dtypes.items()}
        changes.announce(redis, write_newer(redis, view, [(item, number, row) for item in ITEMS]))
        reader.refresh()

    start, done = NOW + DAY_US, threading.Event()
    write(start)
    reading = threading.Thread(target=request)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        reading.start()
        for number in range(start + 1, start + rounds):
            write(number)
    finally:
        done.set()
        reading.join()
        sys.setswitchinterval(switch)
    assert mixed == [] and len(seen) > 3


def test_a_reader_survives_that_all_features_are_deleted_and_made_again(
    online: tuple[Redis, OnlineFeatures], redis_url: str
) -> None:
    redis, reader = online
    for _ in range(3):
        changes.announce(redis, ["item 1"])
    reader.refresh()
    materialize(redis, store.open_store(redis_url), instant(EVENTS[300]["event_ts"]), 100, fresh=True)
    assert reader.refresh() > 0
    expected = matrix_at(CATALOGUE, EVENTS[300]["event_ts"] - 1)
    np.testing.assert_array_equal(reader.matrix.activity["at"], expected.activity["at"])


def test_a_connection_that_redis_closed_meanwhile_is_replaced(online: tuple[Redis, OnlineFeatures]) -> None:
    redis, reader = online

    async def reads() -> list[Any]:
        first = await asyncio.gather(*(reader.read("user 1", "session 1", NOW) for _ in range(3)))
        redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return [*first, *[await reader.read("user 1", "session 1", NOW) for _ in range(3)]]

    found = asyncio.run(reads())
    assert found[0].user is not None and all(rows == found[0] for rows in found)


def test_a_cancelled_read_leaves_no_reply_to_the_next(online: tuple[Redis, OnlineFeatures]) -> None:
    redis, reader = online

    async def reads() -> list[Any]:
        found = [await reader.read("user 1", None, NOW)]
        redis.execute_command("CLIENT", "PAUSE", 150)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await reader.read("user 2", "session 2", NOW)
        return [*found, await reader.read("user 1", None, NOW)]

    before, after = asyncio.run(reads())
    assert before.user is not None and before == after


def test_a_dead_redis_is_an_error_at_once(home: Path, redis_server: str) -> None:
    reader = OnlineFeatures("redis://127.0.0.1:1/0", CATALOGUE)
    began = time.perf_counter()
    with pytest.raises(RedisConnectionError):
        asyncio.run(reader.read("user 1", None, NOW))
    assert time.perf_counter() - began < 1


def test_a_value_of_the_wrong_type_is_named() -> None:
    view = OnlineView(ITEM_ACTIVITY)
    row = {c.name: 0.0 if c.dtype == "float64" else 0 for c in ITEM_ACTIVITY.columns}
    with pytest.raises(FeatureError, match=r"item_activity.at: 'noon' does not fit int64_val"):
        view.encode({**row, "at": "noon"}, NOW)


def test_feast_loads_definitions_and_nothing_else() -> None:
    assert [file.name for file in get_repo_files(store.FOLDER)] == ["definitions.py"]


def test_the_feast_command_applies_the_repository(tmp_path: Path) -> None:
    project = Path(__file__).parents[3]
    shutil.copytree(project / "feature_repo", tmp_path / "feature_repo")
    shutil.copy(project / "params.yaml", tmp_path)
    command = [sys.executable, "-m", "feast.cli.cli", "-c", "feature_repo", "apply"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    applied = FeatureStore(config=store.store_config(tmp_path / "run/registry.db", "redis://localhost"))
    assert {view.name for view in applied.list_feature_views()} == {declared.name for declared in DECLARED}
    names = {service.name for service in applied.list_feature_services()}
    assert names == {"tower", "visitor", "items", "ranker"}


def test_a_reader_that_was_there_before_everything_was_made_anew_ends_like_one_that_came_after(
    online: tuple[Redis, OnlineFeatures],
) -> None:
    redis, reader = online
    held = reader.matrix
    earlier = instant(EVENTS[len(EVENTS) // 3]["event_ts"])
    materialize(redis, store.open_store(), earlier, 100, fresh=True)
    reader.refresh()
    refreshed = reader.matrix
    reader.load_items()
    loaded = reader.matrix
    assert any((held.activity[name] > loaded.activity[name]).any() for name in ACTIVITY)
    for name in ACTIVITY:
        np.testing.assert_array_equal(refreshed.activity[name], loaded.activity[name], name)
