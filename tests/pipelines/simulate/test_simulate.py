"""The simulated shop: canonical, reproducible, with the statistics of a shop."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from shops import simulated_weeks
from shops.simulated_weeks import SEED, tiny, tiny_run

from feature_repo import params
from feature_repo.errors import ParamsError
from feature_repo.events import ITEM_SCHEMA, SCHEMA, SURFACES, TYPES, check_event
from feature_repo.features.context import channel_code, device_code
from pipelines.simulate import simulate as job
from pipelines.simulate.facts import first_visits
from pipelines.simulate.simulate import Simulate, Simulation, simulate, write
from pipelines.simulate.world import World


@pytest.fixture(scope="module")
def constants() -> Simulate:
    return simulated_weeks.constants()


@pytest.fixture(scope="module")
def run() -> Simulation:
    return tiny_run()


@pytest.fixture(scope="module")
def events(run: Simulation) -> pd.DataFrame:
    return run.events.to_pandas()


@pytest.fixture(scope="module")
def impressions(run: Simulation) -> pd.DataFrame:
    return run.impressions.to_pandas()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(params.root() / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    return tmp_path


def test_the_same_seed_writes_the_same_bytes(run: Simulation, constants: Simulate, tmp_path: Path) -> None:
    write(run, tmp_path / "one")
    write(simulate(constants, tiny(), np.random.default_rng(SEED)), tmp_path / "two")
    write(simulate(constants, tiny(), np.random.default_rng(SEED + 1)), tmp_path / "other")
    for name in ("events.parquet", "impressions.parquet", "items.parquet", "truth.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert (tmp_path / "one" / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_tables_are_canonical_and_in_order(
    run: Simulation, events: pd.DataFrame, impressions: pd.DataFrame
) -> None:
    assert run.events.schema == SCHEMA and run.impressions.schema == SCHEMA
    assert run.items.schema == ITEM_SCHEMA
    assert set(impressions["type"]) == {"impression"} and "impression" not in set(events["type"])
    for table in (events, impressions):
        assert table[["event_ts", "event_id"]].apply(tuple, axis=1).is_monotonic_increasing
    ids = pd.concat([events["event_id"], impressions["event_id"]])
    assert ids.is_unique
    assert run.items["item_id"].to_pylist() == sorted(run.items["item_id"].to_pylist())


def test_every_event_passes_the_check_at_the_door(run: Simulation, constants: Simulate) -> None:
    for event in run.events.to_pylist() + run.impressions.slice(0, 2000).to_pylist():
        check_event(event, constants.end)
        assert event["event_ts"] >= constants.start


def test_names_are_those_of_the_vocabulary(events: pd.DataFrame, impressions: pd.DataFrame) -> None:
    assert set(impressions["surface"].dropna()) <= set(SURFACES)
    assert all(device_code(name) for name in events["device"].unique())
    assert all(channel_code(name) for name in events["channel"].unique())
    assert impressions["surface"].nunique() == 8


def test_most_events_arrive_within_seconds_and_a_few_late(events: pd.DataFrame) -> None:
    delay = (events["created_ts"] - events["event_ts"]).dt.total_seconds()
    assert (delay >= 0).all()
    assert delay.median() < 2
    assert 0.003 < (delay > 60).mean() < 0.02


def test_clicks_follow_the_impression_and_lead_to_a_view(
    events: pd.DataFrame, impressions: pd.DataFrame
) -> None:
    clicks = events[events["type"] == "click"]
    slots = clicks[clicks["request_id"].notna()].merge(
        impressions, on=["request_id", "item_id", "session_id", "slot", "position"], suffixes=("", "_shown")
    )
    assert len(slots) == clicks["request_id"].notna().sum()
    assert (slots["event_ts"] > slots["event_ts_shown"]).all()
    views = events[events["type"] == "product_viewed"]
    opened = clicks.merge(views, on=["session_id", "item_id"], suffixes=("", "_view"))
    seconds = (opened["event_ts_view"] - opened["event_ts"]).dt.total_seconds()
    assert (
        opened.loc[seconds.between(0, 2), "event_id"].nunique() >= len(clicks) - 2
    )  # the period ends between


def test_slots_count_from_0_and_positions_from_1(impressions: pd.DataFrame) -> None:
    slotted = impressions[impressions["slot"].notna()]
    assert (slotted["position"] == slotted["slot"] + 1).all()
    assert slotted["request_id"].notna().all() and slotted["surface"].notna().all()
    pages = slotted.groupby("request_id")
    assert (pages["position"].max() == pages.size()).all()
    assert (pages["item_id"].nunique() == pages.size()).all()
    assert (pages["session_id"].nunique() == 1).all()


def test_category_pages_list_one_category(run: Simulation, impressions: pd.DataFrame) -> None:
    path = dict(zip(run.items["item_id"].to_pylist(), run.items["category_path"].to_pylist(), strict=True))
    pages = impressions[impressions["surface"] == "category_sort"]
    assert (pages["item_id"].map(path) == pages["list_name"]).all()


def test_the_shop_has_the_statistics_of_a_shop(
    run: Simulation, events: pd.DataFrame, impressions: pd.DataFrame
) -> None:
    counts = events["type"].value_counts()
    sessions = len(run.sessions)
    assert 0.40 < first_visits(run.sessions).mean() < 0.60
    assert 0.01 < counts["click"] / len(impressions) < 0.05
    buyers = events.loc[events["type"] == "purchase_completed", "session_id"].nunique()
    assert 0.01 < buyers / sessions < 0.06
    assert set(counts.index) == set(TYPES) - {"impression"}
    views = events.loc[events["type"] == "product_viewed", "item_id"].value_counts()
    assert (
        views.head(len(views) // 10).sum() > 0.25 * views.sum()
    )  # a tenth of the items, a quarter of the views


def test_traffic_has_a_daily_and_a_weekly_cycle(run: Simulation) -> None:
    hour = run.sessions.start_us // 3_600_000_000
    by_hour, by_day = np.bincount(hour % 24), np.bincount(hour // 24 % 7)
    assert by_hour[19:22].sum() > 5 * by_hour[1:4].sum()
    assert by_day[6] > 1.1 * by_day[4]


def test_identity_arrives_in_mid_session_and_stays(events: pd.DataFrame, impressions: pd.DataFrame) -> None:
    known = pd.concat([events, impressions]).sort_values(["event_ts", "event_id"])
    named = known.assign(named=known["user_id"].notna()).groupby("session_id")["named"]
    assert named.apply(lambda flags: flags.is_monotonic_increasing).all()
    assert ((named.mean() > 0) & (named.mean() < 1)).sum() > 10
    assert known.groupby("session_id")["user_id"].nunique().max() == 1


def test_nothing_is_listed_before_its_launch_or_after_it_sold_out(
    run: Simulation, constants: Simulate, impressions: pd.DataFrame
) -> None:
    items = run.items.to_pandas().set_index("item_id")
    assert (impressions["event_ts"] >= impressions["item_id"].map(items["available_from"])).all()
    launched = items["available_from"] >= pd.Timestamp(constants.start)
    last_week = items["available_from"] >= pd.Timestamp(constants.end) - pd.Timedelta(days=7)
    assert launched.mean() > 0.08 and last_week.sum() >= 3
    gone = run.world.shop.item_ids[items["stock"].to_numpy() == 0]
    last = impressions[impressions["item_id"].isin(gone)].groupby("item_id")["event_ts"].max()
    until = run.world.shop.until_day[[run.world.row[item] for item in last.index]]
    sold_out_at = pd.to_datetime(constants.start) + pd.to_timedelta(until, unit="D")
    assert len(last) > 3 and (last < sold_out_at).all()


def test_the_job_writes_export_truth_and_picture(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.main(size="tiny") == 0
    export = home / "data" / "export"
    assert pq.read_schema(export / "events.parquet").equals(SCHEMA)
    assert pq.read_metadata(export / "items.parquet").num_rows == 400
    assert len(World.load(export / "truth.npz").shop.item_ids) == 400
    assert (home / "data" / "reports" / "simulate.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert "click-through rate" in out and "sessions by unseen shoppers" in out


def test_the_job_leaves_a_shop_with_real_data_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (home / "params.yaml").read_text()
    (home / "params.yaml").write_text(text.replace("shop: simulated", "shop: merch"))
    assert job.main(size="tiny") == 0
    assert not (home / "data").exists()
    assert "'merch' brings its own data" in capsys.readouterr().out


def test_an_unknown_size_is_refused_with_those_that_exist(home: Path) -> None:
    with pytest.raises(
        ParamsError, match=r"simulate\.sizes: 'huge' is unknown; allowed: simulated, simulated_12k, tiny"
    ):
        job.main(size="huge")
