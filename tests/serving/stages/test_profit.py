"""The margin's knob: nothing at 0, more margin the further it is turned, an unknown one is neutral."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shops.tiny_bundle import catalogue, matrix

from feature_repo.errors import ParamsError
from serving.stages.odds import Chances, Profit
from serving.stages.steering import weighed
from serving.types import Ranked

N = 40
KNOWN = Chances({"homepage_hero": -2.0}, -0.4, 1.0, (-4.0, -2.0, 0.0), (0.01, 0.1, 0.4))
WEIGHTS = (0.0, 0.25, 0.5, 1.0)


def ranked() -> Ranked:
    scores = np.linspace(1, -1, N, dtype=np.float32)
    return Ranked(np.arange(N), scores, ("ease",) * N, np.zeros((N, 0), np.float32))


def shop(margin: np.ndarray) -> object:
    found = matrix(catalogue(N))
    found.margin = margin
    return found


def test_at_0_the_ranking_is_the_very_same() -> None:
    before = ranked()
    assert Profit(0.0, KNOWN).weigh(before, shop(np.linspace(0, 1, N)), "homepage_hero") is before
    assert Profit(0.5).weigh(before, shop(np.linspace(0, 1, N)), "homepage_hero") is before  # not calibrated
    assert Profit(0.5, KNOWN).weigh(before, shop(np.full(N, np.nan)), "homepage_hero") is before


def test_the_further_it_is_turned_the_more_profit_and_the_fewer_clicks_a_list_has() -> None:
    items = shop(np.random.default_rng(1).random(N))
    profits, clicks = [], []
    for weight in WEIGHTS:
        rows = Profit(weight, KNOWN).weigh(ranked(), items, "homepage_hero").rows[:12]
        chance = KNOWN.of("homepage_hero", ranked().score[rows])
        profits.append(round((chance * items.margin[rows]).sum(), 9))  # type: ignore[attr-defined]
        clicks.append(round(chance.sum(), 9))
    assert profits == sorted(profits) and profits[0] < profits[-1]
    assert clicks == sorted(clicks, reverse=True)


def test_a_product_without_a_margin_is_neutral() -> None:
    same = np.full(N, 0.4)
    same[::3] = np.nan
    found = Profit(0.7, KNOWN).weigh(ranked(), shop(same), "homepage_hero")
    assert found.rows.tolist() == ranked().rows.tolist()


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("factor", (0.57, 1.23, 3.0))
def test_chances_that_are_wrong_by_one_factor_order_a_surface_alike(weight: float, factor: float) -> None:
    items = shop(np.random.default_rng(2).random(N))
    off = replace(KNOWN, chance=tuple(factor * one for one in KNOWN.chance))
    told, right = (Profit(weight, one).weigh(ranked(), items, "homepage_hero") for one in (off, KNOWN))
    assert told.rows.tolist() == right.rows.tolist()


def test_rules_weigh_what_the_margin_has_ordered() -> None:
    items = shop(np.linspace(0, 1, N))
    found = Profit(1.0, KNOWN).weigh(ranked(), items, "homepage_hero")
    factor = np.ones(N, np.float32)
    assert weighed(found, factor).rows.tolist() == found.rows.tolist()
    factor[found.rows[0]] = 0.0
    assert weighed(found, factor).rows[-1] == found.rows[0] or weighed(found, factor).relevance[-1] == 0.0


def test_a_weight_that_cannot_be_is_named() -> None:
    with pytest.raises(ParamsError, match=r"margin\.weight: 1\.5 is not allowed; allowed: 0 to 1"):
        Profit(1.5)
