"""The truth behind the simulated shop: its items, and the probabilities that its shoppers follow."""

from __future__ import annotations

import dataclasses
import doctest
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from shops.simulated_weeks import tiny_run

from feature_repo.errors import DataError
from feature_repo.events import PRODUCT_TYPES
from pipelines.simulate import assortment, shelves
from pipelines.simulate.departments import DEPARTMENTS, STYLES
from pipelines.simulate.journeys import KINDS, SURFACES
from pipelines.simulate.simulate import Simulation
from pipelines.simulate.world import Context, World


@pytest.fixture(scope="module")
def run() -> Simulation:
    return tiny_run()


@pytest.fixture(scope="module")
def events(run: Simulation) -> pd.DataFrame:
    return run.events.to_pandas()


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
    with pytest.raises(DataError, match=r"truth\.npz: is missing.*run `endcap simulate`"):
        World.load(tmp_path / "truth.npz")
    np.savez(tmp_path / "truth.npz", law=np.array("{}"))
    with pytest.raises(DataError, match=r"latents shop_accessories, .* are missing"):
        World.load(tmp_path / "truth.npz")


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
