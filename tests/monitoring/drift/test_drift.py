"""Drift: equal traffic is steady, a changed feature is named, and the page opens without a network."""

from __future__ import annotations

import doctest
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from redis import Redis

from feature_repo.assemble.schema import schema_hash
from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import DataError
from feature_repo.params import load
from monitoring.drift import distances as drift_module
from monitoring.drift import drift as job
from monitoring.drift.distances import Drift, DriftParams, compare, read_served
from monitoring.drift.page import write_page
from serving.live.exposures import SERVED, decode, encode

ROOT = Path(__file__).resolve().parents[3]
START_US, HOUR_US = 1_767_225_600_000_000, 3_600_000_000
SLOTS = 12


def matrix(rng: np.random.Generator, answers: int) -> np.ndarray:
    """Feature rows, float32 (answers, SLOTS, 28); what is the shopper's is equal within an answer."""
    of = {name: rng.lognormal(sigma=0.5, size=(answers, SLOTS)) for name in COLUMNS}
    for name in COLUMNS:
        if name.startswith(("user_", "session_")) or name == "idle_s":
            of[name] = np.repeat(rng.lognormal(sigma=0.5, size=(answers, 1)), SLOTS, axis=1)
    for name, codes in (("user_is_known", 2), ("hour_of_day", 24), ("device", 4)):
        of[name] = np.repeat(rng.integers(0, codes, (answers, 1)), SLOTS, axis=1)
    of["shown_position"][rng.random((answers, SLOTS)) < 0.7] = np.nan
    return np.stack([of[name] for name in COLUMNS], axis=-1).astype(np.float32)


def send(redis: Redis, rows: np.ndarray, hours: float = 30.0, schema: str = schema_hash()) -> None:
    """What serving does: one entry per sampled answer."""
    for at, answer in enumerate(rows):
        ts = START_US + int(at * hours * HOUR_US / max(len(rows) - 1, 1))
        items = [f"i{n}" for n in range(len(answer))]
        meta = {"request_id": f"r{at}", "ts": ts, "arm": "champion", "schema": schema, "items": items}
        who = dict.fromkeys(("bundle", "surface", "user_id", "session_id"))
        redis.xadd(SERVED, encode(meta | who, answer))


def training(rng: np.random.Generator, answers: int = 1000) -> pd.DataFrame:
    return pd.DataFrame(matrix(rng, answers).reshape(-1, len(COLUMNS)), columns=list(COLUMNS))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", redis_url)
    return tmp_path


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


def found(redis: Redis, live: np.ndarray, hours: float = 30.0) -> Drift:
    send(redis, live, hours)
    params = load("drift", DriftParams)
    return compare(training(np.random.default_rng(1)), read_served(redis, 5000)[0], params)


def findings(drift: Drift) -> dict[str, str]:
    return {column.name: column.finding for column in drift.columns if column.drifted}


def test_what_serving_samples_is_read_back_bit_by_bit(redis: Redis) -> None:
    rows = matrix(np.random.default_rng(0), 5)
    send(redis, rows)
    read, others = read_served(redis, newest=3)
    assert not others
    assert read["request_id"].tolist() == [f"r{at}" for at in (2, 3, 4) for _ in range(SLOTS)]
    np.testing.assert_array_equal(read[list(COLUMNS)].to_numpy(), rows[2:].reshape(-1, len(COLUMNS)))


def test_equal_traffic_is_steady(home: Path, redis: Redis) -> None:
    drift = found(redis, matrix(np.random.default_rng(2), 600))
    assert findings(drift) == {}
    assert (drift.share, drift.answers, drift.rows_live, drift.enough) == (0.0, 600, 600 * SLOTS, True)
    assert {column.name for column in drift.columns} == set(COLUMNS)


def test_a_moved_feature_and_a_broken_one_are_named(home: Path, redis: Redis) -> None:
    live = matrix(np.random.default_rng(2), 600)
    live[..., COLUMNS.index("price_log")] += 1.0
    live[..., COLUMNS.index("session_views")] = np.nan
    live[..., COLUMNS.index("margin")][:200] = np.nan
    drift = found(redis, live)
    assert findings(drift) == {
        "price_log": "moved",
        "session_views": "missing more often",
        "margin": "missing more often",
    }
    assert drift.share == pytest.approx(3 / 28)


def test_the_distance_grows_with_the_shift(home: Path, redis: Redis) -> None:
    price, sizes = COLUMNS.index("price_log"), []
    for shift in (0.0, 0.3, 0.9):
        redis.delete(SERVED)
        live = matrix(np.random.default_rng(2), 300)
        live[..., price] += shift
        sizes += [c.distance or 0.0 for c in found(redis, live).columns if c.name == "price_log"]
    # Shifting a whole distribution moves it by exactly the shift, here in training standard deviations.
    std = training(np.random.default_rng(1))["price_log"].std()
    assert sizes[0] < 0.1 < sizes[1] < sizes[2]
    assert sizes[2] - sizes[1] == pytest.approx(0.6 / std, rel=0.1)


def test_a_change_of_the_traffic_mix_is_seen(home: Path, redis: Redis) -> None:
    live = matrix(np.random.default_rng(2), 600)
    live[..., COLUMNS.index("user_is_known")] = 0
    drift = found(redis, live)
    assert findings(drift) == {"user_is_known": "moved"}
    assert drift.known_live == 0.0
    assert drift.known_training == pytest.approx(0.5, abs=0.05)


def test_the_hour_is_not_judged_from_an_afternoon(home: Path, redis: Redis) -> None:
    live = matrix(np.random.default_rng(2), 600)
    live[..., COLUMNS.index("hour_of_day")] = 15
    drift = found(redis, live, hours=4)
    assert drift.not_judged == ("hour_of_day",)
    assert findings(drift) == {}
    assert drift.hours == pytest.approx(4, abs=0.01)


def test_few_answers_are_said_to_be_few(home: Path, redis: Redis) -> None:
    assert not found(redis, matrix(np.random.default_rng(2), 20)).enough


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(drift_module) == (0, 2)


def test_the_page_shows_the_same_distances(home: Path, tmp_path: Path) -> None:
    params, then = load("drift", DriftParams), training(np.random.default_rng(1), 40)
    now = training(np.random.default_rng(2), 30).assign(request_id="r", ts=0)
    now["price_log"] += 0.7
    now["device"] = 3.0
    now["tower_score"] = np.nan
    drift = compare(then, now, params)
    shown = write_page(then, now, params, tmp_path / "page.html", drift.not_judged)
    ours = {column.name: column.distance for column in drift.columns}
    assert ours.pop("tower_score") is None
    assert shown == pytest.approx(ours, rel=1e-6)


def test_an_entry_that_is_no_rows_of_28_is_refused(redis: Redis) -> None:
    redis.xadd(SERVED, {"features": b"\0" * 100, "meta": orjson.dumps({"schema": schema_hash()})})
    with pytest.raises(DataError, match="has 100 bytes for 0 candidates of 28 float32"):
        read_served(redis, 10)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({b"meta": b"{", b"features": b""}, "entry 7-0 has unexpected end"),
        ({b"meta": orjson.dumps({"schema": schema_hash()})}, "entry 7-0 has b'features'"),
        ({b"meta": orjson.dumps({"schema": schema_hash()}), b"features": b""}, "entry 7-0 has no request_id"),
    ],
)
def test_an_entry_that_serving_does_not_write_is_named(entry: dict[bytes, bytes], told: str) -> None:
    with pytest.raises(DataError, match=f"{told}.*delete it with XDEL endcap:served 7-0"):
        list(decode([(b"7-0", entry)], Counter()))


def test_answers_of_another_feature_schema_are_left_out_and_counted_by_name(redis: Redis) -> None:
    rows = matrix(np.random.default_rng(0), 3)
    send(redis, rows[:2], schema="another")
    send(redis, rows[2:])
    redis.xadd(SERVED, {"features": b"\0" * 100, "meta": b"{}"})
    read, others = read_served(redis, 10)
    assert others == {"another": 2, "none": 1}
    np.testing.assert_array_equal(read[list(COLUMNS)].to_numpy(), rows[2])


@pytest.fixture
def trained(home: Path) -> Path:
    (home / job.TRAINING).parent.mkdir(parents=True)
    training(np.random.default_rng(1)).assign(query=0).to_parquet(home / job.TRAINING)
    return home


def test_the_job_leaves_a_page_that_needs_no_network(
    trained: Path, redis: Redis, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    live = matrix(np.random.default_rng(2), 600)
    live[..., COLUMNS.index("price_log")] += 1.0
    send(redis, live)
    assert job.main() == 0
    printed = capsys.readouterr().out
    assert re.search(r"price_log +│ item +│ moved", printed)
    assert "1 of 28 features moved" in printed
    page = (trained / job.PAGE).read_text()
    assert "price_log" in page
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//", page)
    written: dict[str, Any] = orjson.loads((trained / job.NUMBERS).read_bytes())
    assert written["share_drifted"] == pytest.approx(1 / 28)
    assert [c["name"] for c in written["columns"] if c["drifted"]] == ["price_log"]
    kept = pd.read_parquet(trained / job.LIVE)
    np.testing.assert_array_equal(kept[list(COLUMNS)].to_numpy(), live.reshape(-1, len(COLUMNS)))


def test_drift_fails_the_job_where_more_moved_than_is_allowed(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = training(np.random.default_rng(2), 50).assign(request_id="r", ts=START_US, price_log=9.0)
    live.to_parquet(trained / "live.parquet")
    assert job.main(live=Path("live.parquet"), fail_over=0.01, as_json=True) == 1
    assert orjson.loads(capsys.readouterr().out) == orjson.loads((trained / job.NUMBERS).read_bytes())


def test_without_training_rows_or_live_rows_the_job_says_what_to_run(trained: Path) -> None:
    with pytest.raises(DataError, match="send the service some requests"):
        job.main()
    (trained / job.TRAINING).unlink()
    with pytest.raises(DataError, match="run `endcap ranker_data`"):
        job.main()
