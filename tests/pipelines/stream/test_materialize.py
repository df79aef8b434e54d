"""Materialize: Redis holds what was known just before an instant, and stock Feast reads the same values."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from redis import Redis
from shops.small import EVENTS_TOTAL, START, open_home, random_events, write_raw

from feature_repo.clock import DAY_US, instant, micros
from feature_repo.errors import DataError, EndcapError, ParamsError
from feature_repo.features.catalogue import DECLARED
from feature_repo.features.store import open_store
from feature_repo.features.stored import SESSION_CONTEXT, USER_HISTORY
from feature_repo.offline.build import main as features
from feature_repo.online import changes
from feature_repo.online.rows import OnlineView, read_rows, write_newer
from feature_repo.params import root, shop
from feature_repo.places import feature_file
from pipelines.ingest.adapters.adapters import ADAPTERS
from pipelines.stream.materialize import default_as_of, end_of_data, main, materialize

EVENTS = random_events(seed=5, count=EVENTS_TOTAL)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = open_home(tmp_path_factory.mktemp("shop"), patch)
        write_raw(folder, EVENTS)
        features()
        yield folder


@pytest.fixture
def redis(home: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with Redis.from_url(redis_url) as client:
        yield client


def newest(view: str, key: str, end: int, max_age_days: int) -> dict[str, dict[str, Any]]:
    """Entity -> its newest stored row strictly before `end`, by plain python."""
    rows: dict[str, dict[str, Any]] = {}
    for row in pq.read_table(feature_file(view)).sort_by("event_timestamp").to_pylist():
        ts = micros(row["event_timestamp"])
        if ts < end and (not max_age_days or ts >= end - max_age_days * DAY_US):
            rows[row[key]] = row
    return rows


@pytest.mark.parametrize("end", [EVENTS[450]["event_ts"], EVENTS[-1]["event_ts"] + 1])
def test_redis_holds_the_newest_row_strictly_before_the_instant(redis: Redis, end: int) -> None:
    store = open_store()
    written = materialize(redis, store, instant(end), 100, fresh=True)
    for declared in DECLARED:
        expected = newest(declared.name, declared.key, end, declared.max_age_days)
        assert written[declared.name] == len(expected) > 0
        held = read_rows(redis, OnlineView(declared), list(expected))
        for row, found in zip(expected.values(), held, strict=True):
            assert found is not None
            # What a catalogue says holds from the beginning on, and is as new as the export; a shop that
            # begins in its past knows of no later one, else no live change of that day could move its row.
            stamp = micros(row["event_timestamp" if declared.types else "created_timestamp"])
            assert found == (min(stamp, end - 1), {c.name: row[c.name] for c in declared.columns})
    assert changes.applied_ts(redis) < end


def test_feast_s_own_materialize_and_read_give_the_same_values(redis: Redis) -> None:
    store, end = open_store(), instant(EVENTS[-1]["event_ts"] + 1)
    asked = [{"user_id": f"user {i}", "session_id": f"session {i}", "item_id": f"item {i}"} for i in range(9)]
    asked.append({"user_id": "nobody", "session_id": "none", "item_id": "nothing"})

    def read() -> dict[str, Any]:
        service = store.get_feature_service("ranker")
        return dict(store.get_online_features(service, asked, full_feature_names=True).to_dict())

    materialize(redis, store, end, 100, fresh=True)
    ours = read()
    redis.flushall()
    for declared in DECLARED:
        age = timedelta(days=declared.max_age_days or 20_000)
        store.materialize(
            end - age, end - timedelta(microseconds=1), [declared.name], disable_event_timestamp=False
        )
    assert ours == read()
    assert ours["user_history__recent_items"][1] and ours["session_context__shown_items"][0] is not None


def test_a_row_that_the_stream_made_newer_stays(redis: Redis) -> None:
    store, view = open_store(), OnlineView(USER_HISTORY)
    newer = {**USER_HISTORY.row(USER_HISTORY.new()), "sessions": 77}
    write_newer(redis, view, [("user 1", START + 50 * DAY_US, newer)])
    materialize(redis, store, instant(EVENTS[-1]["event_ts"] + 1), 100, fresh=False)
    (held,) = read_rows(redis, view, ["user 1"])
    assert held is not None and held[1]["sessions"] == 77


def test_fresh_deletes_features_and_on_request_the_log_but_nothing_of_others(redis: Redis) -> None:
    store, view = open_store(), OnlineView(SESSION_CONTEXT)
    row = SESSION_CONTEXT.row(SESSION_CONTEXT.new())
    write_newer(redis, view, [("a session of last year", START, row)])
    redis.xadd("endcap:events:0", {"event": b"{}"})
    known, logged = ("endcap:stream:applied", "endcap:done:items:1"), ("endcap:events:0", "endcap:seen:1")
    others = ("endcap:rollout", "of another program")
    for key in (*known, "endcap:seen:1", *others):
        redis.set(key, 1)
    end = instant(EVENTS[-1]["event_ts"] + 1)
    materialize(redis, store, end, 100, fresh=True)
    assert read_rows(redis, view, ["a session of last year"]) == [None]
    assert not redis.exists(*known)
    assert redis.exists(*logged, *others) == 4
    materialize(redis, store, end, 100, fresh=True, forget_log=True)
    assert not redis.exists(*logged)
    assert redis.exists(*others) == 2


def test_rows_are_not_made_afresh_under_a_consumer_at_work(redis: Redis) -> None:
    redis.set("endcap:stream:lease:items", "somebody", px=5_000)
    with pytest.raises(EndcapError, match=r"endcap:stream:lease:items is held .* `endcap down stream`"):
        materialize(redis, open_store(), instant(START), 100, fresh=True)
    with pytest.raises(EndcapError, match=r"endcap:stream:lease:items is held"):
        materialize(redis, open_store(), instant(START), 100, fresh=False)  # nothing is there to go on from
    assert redis.keys("endcap:stream:lease:*") == [b"endcap:stream:lease:items"]


def test_no_consumer_begins_while_rows_are_made(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    announce = changes.announce
    monkeypatch.setattr(
        changes, "announce", lambda *a: (seen.append(len(redis.keys("endcap:stream:lease:*"))), announce(*a))
    )
    materialize(redis, open_store(), instant(EVENTS[-1]["event_ts"] + 1), 100, fresh=True)
    assert seen and set(seen) == {5}
    assert not redis.keys("endcap:stream:lease:*")


def test_by_default_a_shop_goes_on_from_the_end_of_its_data(redis: Redis) -> None:
    assert end_of_data(root() / "data/raw") == instant(EVENTS[-1]["event_ts"] + 1)
    main()
    assert changes.applied_ts(redis) == EVENTS[-1]["event_ts"]


@pytest.mark.parametrize("adapter", [name for name in ADAPTERS if name != "simulated"])
def test_a_recorded_shop_of_any_adapter_stands_at_its_test_cut(
    adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its replay would find features that hold events from beyond the cut."""
    folder = open_home(tmp_path, monkeypatch)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["shops"]["simulated"]["adapter"] = adapter
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    assert default_as_of() == shop().test_from


def test_wrong_input_is_named(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_home(tmp_path, monkeypatch)
    monkeypatch.setenv("REDIS_URL", redis_url)
    with pytest.raises(ParamsError, match=r"--as-of: 'yesterday' is not an instant"):
        main(as_of="yesterday")
    with pytest.raises(DataError, match=r"user_history.parquet: is missing. Next: run `endcap features`"):
        main(as_of="2026-01-01")
    monkeypatch.setenv("REDIS_URL", "unix:///tmp/redis.sock")
    with pytest.raises(ParamsError, match="REDIS_URL"):
        open_store()
