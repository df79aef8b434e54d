"""Learned from clicks on logged lists: planted weights are found; chance and few clicks teach nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from feature_repo.errors import ParamsError
from pipelines.blend import clicks
from pipelines.blend.ladder import RUNGS, dcg_of, ladder
from pipelines.blend.order import affordable
from serving.stages.odds import PHASES, Clicks

SHIPPED = Clicks(60, dict.fromkeys(PHASES, 1.0), dict.fromkeys(PHASES, 0.0))


def lists(phase: str, score: float, pull: float, pages: int = 1500, seed: int = 3) -> pd.DataFrame:
    """Lists of 12 on two surfaces, clicked by these weights and half as likely at each fourfold position."""
    rng, n = np.random.default_rng(seed), 12 * pages
    shown = pd.DataFrame(
        {
            "page": np.repeat(np.arange(pages), 12),
            "phase": phase,
            "surface": np.repeat(np.where(np.arange(pages) % 2, "homepage_hero", "category_sort"), 12),
            "position": np.tile(np.arange(1.0, 13.0), pages),
            "score": rng.normal(size=n),
            "attraction": rng.normal(scale=0.5, size=n),
            "popular": rng.random(n),
        }
    )
    odds = score * shown["score"] + pull * shown["attraction"] - 0.5 * np.log(shown["position"])
    odds += np.where(shown["surface"] == "category_sort", -1.0, -3.0)
    return shown.assign(clicked=rng.random(n) < expit(odds))


def test_planted_weights_are_found_whatever_the_surface_and_the_position() -> None:
    shown = pd.concat([lists("visit", 0.8, 0.6), lists("returning", 0.0, 1.2, seed=4)])
    found = clicks.learn(shown, SHIPPED, 40)
    assert found["ranker"]["visit"] == pytest.approx(0.8, abs=0.1)
    assert found["attraction"]["visit"] == pytest.approx(0.6, abs=0.15)
    assert found["ranker"]["returning"] < 0.1
    assert found["attraction"]["returning"] == pytest.approx(1.2, abs=0.2)
    assert found["phases"]["visit"]["clicks"] == lists("visit", 0.8, 0.6)["clicked"].sum()


def test_a_strangers_list_is_the_attractions_alone_for_the_ranker_was_never_asked_about_him() -> None:
    found = clicks.learn(lists("stranger", 0.8, 0.6), SHIPPED, 40)
    assert found["ranker"]["stranger"] == 0.0
    assert found["attraction"]["stranger"] > 0.3


def test_few_clicks_no_lists_and_an_attraction_that_tells_nothing_leave_the_shipped_weights() -> None:
    few = lists("visit", 0.8, 0.6, pages=20)
    nothing = pd.DataFrame({"phase": []})
    untold = lists("visit", 0.8, 0.0).assign(attraction=0.0)
    for shown, least in ((few, 1000), (nothing, 40), (untold, 40)):
        found = clicks.learn(shown, SHIPPED, least)
        assert (found["ranker"], found["attraction"]) == (SHIPPED.ranker, SHIPPED.attraction)


def test_an_attraction_that_repels_is_not_taken() -> None:
    assert clicks.learn(lists("visit", 0.8, -0.6), SHIPPED, 40)["attraction"]["visit"] == 0.0


def test_the_most_attraction_is_taken_that_ndcg_can_afford() -> None:
    rows = [{"share": s, "ndcg_at_12": n} for s, n in ((0, 0.3), (0.25, 0.299), (0.5, 0.2975), (1, 0.29))]
    assert [affordable(rows, cost) for cost in (0.0, 0.005, 0.01, 0.05)] == [0, 0.25, 0.5, 1]
    assert affordable([], 0.01) == 0


def test_a_rung_that_knows_what_is_clicked_stands_above_those_that_do_not() -> None:
    learned = Clicks(60, SHIPPED.ranker | {"visit": 0.8}, SHIPPED.attraction | {"visit": 1.2})
    found = ladder(lists("visit", 0.8, 1.2), learned)["visit"]
    assert list(found) == ["lists", *RUNGS]
    assert found["ours"] > max(found["ranker"], found["attraction"])
    assert min(found["ranker"], found["attraction"]) > max(found["popular"], found["as shown"])


@pytest.mark.parametrize(("score", "told"), [([2, 1, 0], 1.0), ([0, 1, 2], 0.5), ([1, 1, 1], 0.7103)])
def test_ties_share_the_discounts_of_their_places(score: list[float], told: float) -> None:
    assert dcg_of(np.array([1.0, 0.0, 0.0]), np.array(score, float)) == pytest.approx(told, abs=1e-4)


@pytest.mark.parametrize("section", ["ranker", "attraction"])
def test_a_phase_that_is_missing_is_named(section: str) -> None:
    fields: dict[str, Any] = {"ranker": SHIPPED.ranker, "attraction": SHIPPED.attraction}
    with pytest.raises(ParamsError, match=rf"clicks\.{section}: \['visit'\].*stranger, returning, visit"):
        Clicks(60, **(fields | {section: {"visit": 1.0}}))
