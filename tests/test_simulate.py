"""The simulated shop: canonical, reproducible, and true to its own probabilities."""

from __future__ import annotations

import dataclasses
import doctest
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from feature_repo import params
from feature_repo.errors import DataError, ParamsError
from feature_repo.events import ITEM_SCHEMA, PRODUCT_TYPES, SCHEMA, TYPES, check_event
from feature_repo.vocabulary import channel_code, device_code, surface_code
from pipelines import assortment, shelves
from pipelines import simulate as job
from pipelines.departments import DEPARTMENTS, STYLES
from pipelines.journeys import KINDS, SURFACES
from pipelines.simulate import Simulate, Simulation, simulate, write
from pipelines.simulate_report import first_visits
from pipelines.world import Context, World

SEED = 7


@pytest.fixture(scope="module")
def constants() -> Simulate:
    return dataclasses.replace(params.load("simulate", Simulate), size="tiny")


@pytest.fixture(scope="module")
def run(constants: Simulate) -> Simulation:
    return simulate(constants, np.random.default_rng(SEED))


@pytest.fixture(scope="module")
def events(run: Simulation) -> pd.DataFrame:
    return run.events.to_pandas()


@pytest.fixture(scope="module")
def impressions(run: Simulation) -> pd.DataFrame:
    return run.impressions.to_pandas()


def test_the_same_seed_writes_the_same_bytes(run: Simulation, constants: Simulate, tmp_path: Path) -> None:
    write(run, tmp_path / "one")
    write(simulate(constants, np.random.default_rng(SEED)), tmp_path / "two")
    write(simulate(constants, np.random.default_rng(SEED + 1)), tmp_path / "other")
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
    assert all(surface_code(name) for name in impressions["surface"].dropna().unique())
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


def test_realised_clicks_match_the_true_probabilities(run: Simulation) -> None:
    """In each tenth of the impressions by probability, clicks are within 4 standard errors."""
    log, items = run.log, len(run.world.shop.item_ids)
    shown, clicked = log["kind"] == KINDS.index("impression"), log["kind"] == KINDS.index("click")
    key = log["page"] * items + log["item"]
    outcome = np.isin(key[shown], key[clicked])
    chance = log["chance"][shown]
    for tenth in np.array_split(np.argsort(chance), 10):
        expected = chance[tenth].sum()
        error = np.sqrt((chance[tenth] * (1 - chance[tenth])).sum())
        assert abs(outcome[tenth].sum() - expected) < 4 * error
    assert chance[outcome].mean() > 2 * chance.mean()


def test_logged_chance_is_examination_times_attraction(run: Simulation) -> None:
    """The first page of a session that did not land on a product is reproduced from the truth alone."""
    log, visits, world = run.log, run.sessions, run.world
    first_page = (log["kind"] == KINDS.index("impression")) & (log["at"] == visits.start_us[log["session"]])
    rows = np.flatnonzero(first_page & (log["surface"] == SURFACES.index("homepage_hero")))
    session = log["session"][rows]
    context = Context(
        "homepage_hero", visits.leaf[session], visits.style[session], -1, visits.start_us[session] / 86.4e9
    )
    attraction = world.click_probability(visits.shopper[session], log["item"][rows][:, None], context)[:, 0]
    assert len(rows) > 1000
    np.testing.assert_allclose(attraction * world.examination(log["position"][rows]), log["chance"][rows])


def test_true_best_list_is_ordered_by_true_probability(run: Simulation) -> None:
    world = run.world
    context = Context("homepage_hero", leaf=3, style=1, focus=10, day=50.0)
    best = world.true_best_list(5, context, 12)
    chance = world.click_probability(5, np.array([world.row[item] for item in best]), context)
    everything = np.arange(len(world.shop.item_ids))
    allowed = world.shop.on_sale(everything, 50.0) & (everything != 10)
    others = np.setdiff1d(everything[allowed], [world.row[item] for item in best])
    assert len(set(best)) == 12 and (np.diff(chance) <= 0).all()
    assert chance.min() >= world.click_probability(5, others, context).max()
    assert all(world.shop.on_sale(np.array([world.row[item] for item in best]), 50.0))


def test_probabilities_of_a_batch_equal_those_of_one(run: Simulation) -> None:
    world = run.world
    items = np.array([[1, 2, -1], [7, 8, 9]])
    batch = world.click_probability(
        np.array([3, 4]),
        items,
        Context("pdp_fbt", np.array([1, -1]), np.array([0, -1]), np.array([5, -1]), 9.0),
    )
    np.testing.assert_array_equal(
        batch[0], world.click_probability(3, items[0], Context("pdp_fbt", 1, 0, 5, 9.0))
    )
    np.testing.assert_array_equal(batch[1], world.click_probability(4, items[1], Context("pdp_fbt", day=9.0)))
    assert batch[0, 2] == 0.0 and (batch[1] > 0).all()


def test_a_reloaded_world_is_the_same_world(run: Simulation, tmp_path: Path) -> None:
    run.world.save(tmp_path / "truth.npz")
    loaded = World.load(tmp_path / "truth.npz")
    context = Context("homepage_hero", day=20.0)
    assert loaded.true_best_list(11, context, 30) == run.world.true_best_list(11, context, 30)
    items = np.arange(len(loaded.shop.item_ids))
    np.testing.assert_array_equal(
        loaded.click_probability(11, items, context), run.world.click_probability(11, items, context)
    )
    assert loaded.start == run.world.start and loaded.population == run.world.population


def test_a_missing_or_foreign_truth_is_refused_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"truth\.npz: not found.*run `endcap simulate`"):
        World.load(tmp_path / "truth.npz")
    np.savez(tmp_path / "truth.npz", law=np.array("{}"))
    with pytest.raises(DataError, match=r"latents shop_accessories, .* are missing"):
        World.load(tmp_path / "truth.npz")


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


def test_titles_show_style_and_category(run: Simulation) -> None:
    titles = run.items["title"].to_pylist()
    for item in range(0, len(titles), 7):
        style = STYLES[run.world.shop.style[item]]
        leaf = int(run.world.shop.leaf[item])
        nouns = DEPARTMENTS[leaf // 6].leaves[leaf % 6].nouns
        assert any(word in titles[item] for word in style.adjectives)
        assert any(noun in titles[item] for noun in nouns)


def test_accessories_come_from_complementary_categories_and_lead_to_views(run: Simulation) -> None:
    shop = run.world.shop
    item, place = np.nonzero(shop.accessories >= 0)
    linked = shop.accessories[item, place]
    assert (shop.complements[shop.leaf[item]] == shop.leaf[linked][:, None]).any(1).all()
    assert (shop.style[item] == shop.style[linked]).mean() > 0.5
    context = Context("pdp_fbt", leaf=int(shop.leaf[item[0]]), style=0, focus=int(item[0]), day=1.0)
    unfocused = dataclasses.replace(context, focus=-1)
    one = linked[:1]
    assert run.world.click_probability(0, one, context) > run.world.click_probability(0, one, unfocused)


def test_covisitation_beats_popularity_on_the_last_week(run: Simulation, events: pd.DataFrame) -> None:
    """Next new item in the top 12: items seen together before against the most viewed of the period."""
    contacts = events[events["type"].isin(PRODUCT_TYPES)].drop_duplicates(["session_id", "item_id"])
    row = contacts["item_id"].map(run.world.row).to_numpy()
    session = contacts["session_id"].str[1:].astype(int).to_numpy()
    before = (contacts["event_ts"] < datetime(2026, 2, 23, tzinfo=UTC)).to_numpy()
    shape = (len(run.sessions), len(run.world.shop.item_ids))
    seen = sparse.csr_matrix((np.ones(before.sum()), (session[before], row[before])), shape=shape)
    together, popular = (seen.T @ seen).toarray(), np.asarray(seen.sum(0)).ravel()
    lift = together / np.sqrt(np.outer(popular + 1, popular + 1))
    hits = np.zeros(2)
    pairs = [
        (here, there)
        for _, group in pd.Series(row[~before]).groupby(session[~before])
        for here, there in zip(group.iloc[:-1], group.iloc[1:], strict=True)
    ]
    for here, there in pairs:
        for model, score in enumerate((popular, lift[here])):
            score = np.where(np.arange(len(score)) == here, -1, score)
            hits[model] += (score > score[there]).sum() < 12
    assert len(pairs) > 100
    assert hits[1] > 1.5 * hits[0]


def test_examples_in_docstrings_hold() -> None:
    for module in (assortment, shelves):
        assert doctest.testmod(module).failed == 0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(params.root() / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    return tmp_path


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
    with pytest.raises(ParamsError, match=r"simulate\.size: 'huge' is unknown; allowed: full, tiny"):
        job.main(size="huge")
