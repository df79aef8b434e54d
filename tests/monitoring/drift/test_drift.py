"""Drift: equal traffic is steady, what changed is named, chance is not, and the page needs no network."""

from __future__ import annotations

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
from shops import tiny_bundle
from shops.storefront import act, release_of

from feature_repo.assemble.schema import schema_hash
from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import DataError
from feature_repo.params import load
from feature_repo.places import DRIFT, REFERENCE
from monitoring.drift import drift as job
from monitoring.drift.distances import TOLD, Drift, DriftParams, compare, read_served
from serving.live.exposures import SERVED, decode, encode
from serving.release import state

ROOT = Path(__file__).resolve().parents[3]
START_US, HOUR_US = 1_767_225_600_000_000, 3_600_000_000
SLOTS = 12
ITEMS = [f"i{n}" for n in range(SLOTS)]
OF_SHOPPER = ("user_", "session_")


def matrix(rng: np.random.Generator, answers: int) -> np.ndarray:
    """Feature rows, float32 (answers, SLOTS, 28); what is the shopper's is equal within an answer."""
    of = {name: rng.lognormal(sigma=0.5, size=(answers, SLOTS)) for name in COLUMNS}
    for name in COLUMNS:
        if name.startswith(OF_SHOPPER):
            of[name] = np.repeat(rng.lognormal(sigma=0.5, size=(answers, 1)), SLOTS, axis=1)
    codes = {"device": 4, "session_views": 2, "session_pages": 2}
    for name, many in codes.items():
        of[name] = np.repeat(rng.integers(0, many, (answers, 1)), SLOTS, axis=1)
    of["shown_position"][rng.random((answers, SLOTS)) < 0.7] = np.nan
    return np.stack([of[name] for name in COLUMNS], axis=-1).astype(np.float32)


def metas(answers: int, hours: float) -> list[dict[str, Any]]:
    """What serving tells of each answer; two in a row are of one visit."""
    told = {"arm": "champion", "bundle": "b", "surface": "homepage_hero", "user_id": None}
    stamps = START_US + np.linspace(0, hours * HOUR_US, answers).astype(int)
    return [
        told | {"request_id": f"r{at}", "session_id": f"s{at // 2}", "ts": int(ts), "items": ITEMS}
        for at, ts in enumerate(stamps)
    ]


def send(redis: Redis, rows: np.ndarray, hours: float = 200.0, **told: str) -> None:
    """What serving does: one entry per sampled answer."""
    for meta, answer in zip(metas(len(rows), hours), rows, strict=True):
        redis.xadd(SERVED, encode({"schema": schema_hash()} | meta | told, answer))


def frame(rows: np.ndarray, hours: float = 200.0) -> pd.DataFrame:
    """The same as read_served gives it."""
    told = pd.DataFrame([meta for meta in metas(len(rows), hours) for _ in range(SLOTS)])[list(TOLD)]
    return pd.concat([told, pd.DataFrame(rows.reshape(-1, len(COLUMNS)), columns=list(COLUMNS))], axis=1)


def usual() -> pd.DataFrame:
    return frame(matrix(np.random.default_rng(1), 1000))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", redis_url)
    return tmp_path


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


def found(live: np.ndarray, hours: float = 200.0) -> Drift:
    return compare(usual(), frame(live, hours), load("drift", DriftParams))[0]


def findings(drift: Drift) -> dict[str, str]:
    return {column.name: column.finding for column in drift.columns if column.drifted}


def test_what_serving_samples_is_read_back_bit_by_bit(redis: Redis) -> None:
    rows = matrix(np.random.default_rng(0), 5)
    send(redis, rows)
    read, others = read_served(redis, newest=3)
    assert not others
    assert read["request_id"].tolist() == [f"r{at}" for at in (2, 3, 4) for _ in range(SLOTS)]
    np.testing.assert_array_equal(read[list(COLUMNS)].to_numpy(), rows[2:].reshape(-1, len(COLUMNS)))


def test_equal_traffic_is_steady(home: Path) -> None:
    drift = found(matrix(np.random.default_rng(2), 1000))
    assert findings(drift) == {}
    assert (drift.share, drift.answers_live, drift.visits_live, drift.alone) == (0.0, 1000, 500, 0.0)
    assert {column.name for column in drift.columns} == set(COLUMNS)
    assert sum(column.finding == "steady" for column in drift.columns) >= 24  # some are rarely there


def test_chance_alone_is_not_called_drift(home: Path) -> None:
    """Fifteen samples of 30 visits: more than one cry in them would be rarer than once in five hundred."""
    drifts = [found(matrix(np.random.default_rng(seed), 60)) for seed in range(100, 115)]
    assert sum(bool(findings(drift)) for drift in drifts) <= 2
    assert any(column.finding == "too few answers" for drift in drifts for column in drift.columns)


def test_a_moved_feature_and_a_broken_one_are_named(home: Path) -> None:
    live = matrix(np.random.default_rng(2), 600)
    live[..., COLUMNS.index("price_log")] += 1.0
    live[..., COLUMNS.index("user_days_away")] = np.nan
    live[..., COLUMNS.index("margin")][:200] = np.nan
    drift = found(live)
    assert findings(drift) == {
        "price_log": "moved",
        "user_days_away": "missing more often",
        "margin": "missing more often",
    }
    assert drift.share == pytest.approx(3 / 28)


def test_the_distance_is_the_shift_in_standard_deviations(home: Path) -> None:
    price, sizes = COLUMNS.index("price_log"), []
    for shift in (0.0, 0.3, 0.9):
        live = matrix(np.random.default_rng(2), 300)
        live[..., price] += shift
        sizes += [c.values.distance for c in found(live).columns if c.name == "price_log" and c.values]
    assert sizes[0] < 0.1 < sizes[1] < sizes[2]
    assert sizes[2] - sizes[1] == pytest.approx(0.6 / usual()["price_log"].std(), rel=0.1)


def test_a_change_of_the_traffic_mix_is_seen_with_its_shares(home: Path) -> None:
    live = matrix(np.random.default_rng(2), 600)
    live[..., COLUMNS.index("device")] = 2
    drift = found(live)
    assert findings(drift) == {"device": "moved"}
    assert drift.hours == pytest.approx(200, abs=0.01)
    device = next(column for column in drift.columns if column.drifted)
    assert (device.code, device.now) == (2, pytest.approx(1.0))
    assert device.then == pytest.approx(0.25, abs=0.05)


def test_which_places_are_asked_is_no_drift(home: Path) -> None:
    """Live asks mostly at the start of visits, where a column is another: its like there is the same."""
    views, price = COLUMNS.index("session_views"), COLUMNS.index("category_affinity")
    samples = []
    for seed, share in ((1, 0.3), (2, 0.9)):
        rows, rng = matrix(np.random.default_rng(seed), 800), np.random.default_rng(seed)
        rows[..., views] = rng.random((800, 1)) > share
        rows[..., price] += 3 * rows[..., views]
        samples.append(frame(rows))
    assert findings(compare(samples[0], samples[1], load("drift", DriftParams))[0]) == {}


def test_answers_at_a_place_that_the_reference_lacks_are_left_out_and_counted(home: Path) -> None:
    live = frame(matrix(np.random.default_rng(2), 400))
    live.loc[live.index < 100 * SLOTS, "surface"] = "pdp_fbt"
    drift = compare(usual(), live, load("drift", DriftParams))[0]
    assert (drift.answers_live, drift.alone) == (300, 0.25)
    with pytest.raises(DataError, match="no place of a visit has enough answers"):
        compare(usual(), live.assign(surface="pdp_fbt"), load("drift", DriftParams))


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
def released(home: Path, redis: Redis) -> Path:
    """A shop whose champion carries a reference."""
    built = tiny_bundle.make(home)
    usual().to_parquet(built / REFERENCE.name)
    state.install(redis, release_of(home, built), act())
    return home


def champion(redis: Redis) -> str:
    held = state.read(redis)
    assert held
    return held.champion.digest


def test_the_job_leaves_a_page_that_needs_no_network(
    released: Path, redis: Redis, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    live = matrix(np.random.default_rng(2), 600)
    live[..., COLUMNS.index("price_log")] += 1.0
    send(redis, matrix(np.random.default_rng(3), 5), bundle="an older one")
    send(redis, live, bundle=champion(redis))
    assert job.main() == 0
    printed, told = capsys.readouterr()
    assert "5 answers of other releases are left out" in told
    assert "600 live answers of 300 visits in 200.0 hours" in printed
    assert re.search(r"1 of 2\d columns moved", printed)
    assert re.search(r"price_log +│ moved +│ +1.1\d +│ +2.1\d", printed)
    assert max(map(len, printed.splitlines())) <= 80
    page = (released / job.PAGE).read_text()
    assert "price_log" in page
    assert not re.search(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?(?:https?:)?//", page)
    written: dict[str, Any] = orjson.loads((released / DRIFT).read_bytes())
    assert written["share_drifted"] == pytest.approx(1 / 28)
    [moved] = [c for c in written["columns"] if c["drifted"]]
    assert moved["name"] == "price_log"
    assert f"{moved['values']['distance']:.6f}"[:6] in page  # the page's distances are ours
    assert (released / job.PICTURE).stat().st_size > 10_000
    kept = pd.read_parquet(released / job.LIVE)
    np.testing.assert_array_equal(kept[list(COLUMNS)].to_numpy(), live.reshape(-1, len(COLUMNS)))


@pytest.mark.parametrize(("setting", "value"), [("retrieve", "k"), ("diversify", "trade_off")])
def test_answers_of_a_release_that_retrieves_otherwise_are_not_compared(
    setting: str, value: str, released: Path, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    held = tiny_bundle.settings()[setting]
    other = release_of(released, tiny_bundle.make(released, **{setting: held | {value: 2 * held[value] + 1}}))
    before = champion(redis)
    first = state.present(redis).champion
    state.revert(redis, state.install(redis, other, act()), first, act())
    assert champion(redis) == before
    send(redis, matrix(np.random.default_rng(2), 300), bundle=before)
    send(redis, matrix(np.random.default_rng(3), 5), bundle=other.digest)
    assert job.main() == 0
    left_out = "5 answers of other releases are left out" in capsys.readouterr().err
    assert left_out == (setting == "retrieve")


def test_drift_fails_the_job_where_more_moved_than_is_allowed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual().to_parquet(home / "usual.parquet")
    frame(matrix(np.random.default_rng(2), 200)).assign(price_log=9.0).to_parquet(home / "live.parquet")
    files = {"reference": Path("usual.parquet"), "live": Path("live.parquet")}
    assert job.main(**files, fail_over=0.01, as_json=True) == 1
    assert orjson.loads(capsys.readouterr().out) == orjson.loads((home / DRIFT).read_bytes())


def test_without_a_reference_or_live_rows_the_job_says_what_to_run(released: Path, redis: Redis) -> None:
    with pytest.raises(DataError, match="send the service some requests"):
        job.main()
    send(redis, matrix(np.random.default_rng(2), 20), bundle=champion(redis))
    next((released / "data" / "bundles").glob(f"*/{REFERENCE.name}")).unlink()
    with pytest.raises(DataError, match="run `endcap evaluate` and `endcap bundle`"):
        job.main()
