"""A page of lists: no product twice, each list full, and each on its own when something fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops.storefront import HERO, Shop, items, make_home, open_shop, session_row

from feature_repo.events import SURFACES
from feature_repo.features.catalogue import SHOWN
from serving import pipeline

TWO = [{"surface": "homepage_hero", "limit": 12}, {"surface": "similar_items", "limit": 6}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def shop(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as opened:
        yield opened


def page(shop: Shop, surfaces: list[dict[str, Any]], **fields: Any) -> list[dict[str, Any]]:
    response = shop.post("/v1/page", {"surfaces": surfaces, "user_id": "u1", "session_id": "s1", **fields})
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "private, no-store"
    found: list[dict[str, Any]] = response.json()["surfaces"]
    return found


def test_the_first_list_has_the_first_choice_and_is_that_of_recommend(shop: Shop) -> None:
    hero, similar = page(shop, TWO)
    alone = shop.post("/v1/recommend", HERO).json()
    assert items(hero) == items(alone)
    assert [hero["surface"], similar["surface"]] == ["homepage_hero", "similar_items"]
    assert len(items(similar)) == 6 and not {*items(hero)} & {*items(similar)}
    assert hero["request_id"] != similar["request_id"]
    assert set(hero) == set(alone)


def test_the_shopper_is_read_once_and_steers_every_list(shop: Shop) -> None:
    cold = page(shop, TWO)
    shop.features.sessions["s1"] = session_row(("product_viewed", "item-3"), ("add_to_cart", "item-8"))
    before = shop.features.reads
    warm = page(shop, TWO)
    assert shop.features.reads == before + 1
    assert [items(one) for one in warm] != [items(one) for one in cold]
    assert not any("item-8" in items(one) for one in warm)  # in the cart
    assert {one["bundle"] for one in warm} == {cold[0]["bundle"]}


asked = st.fixed_dictionaries(
    {"surface": st.sampled_from(SURFACES)},
    optional={
        "items": st.lists(st.integers(0, 70).map("item-{}".format), max_size=4),
        "limit": st.integers(1, 30),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(surfaces=st.lists(asked, min_size=1, max_size=8))
def test_no_product_is_twice_on_a_page_and_no_list_is_short_while_products_are_left(
    shop: Shop, surfaces: list[dict[str, Any]]
) -> None:
    lists = [items(one) for one in page(shop, surfaces)]
    shown = [item for one in lists for item in one]
    named = {item for one in surfaces for item in one.get("items", ())}
    assert len(shown) == len(set(shown)) and not named & set(shown)
    left = 54 - sum(int(item[5:]) < 60 and not item.endswith("9") for item in named)  # 6 of 60 are sold out
    for one, found in zip(surfaces, lists, strict=True):
        assert len(found) == min(one.get("limit", 12), left)
        left -= len(found)


def test_every_list_is_in_the_log_of_what_was_shown_under_its_own_id(shop: Shop) -> None:
    lists = page(shop, TWO)
    assert shop.run(shop.exposures.flush)
    logged = [orjson.loads(fields[b"exposure"]) for _, fields in shop.redis.xrange("endcap:exposures")]
    found = {one["request_id"]: (one["surface"], one["items"]) for one in logged}
    assert found == {one["request_id"]: (one["surface"], items(one)) for one in lists}


def test_a_list_that_fails_steps_down_by_itself(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pipeline.rank

    def fails(ranker: Any, candidates: Any, visitor: Any, *rest: Any) -> Any:
        if visitor.surface == "pdp_fbt":
            raise RuntimeError("broken on purpose")
        return whole(ranker, candidates, visitor, *rest)

    monkeypatch.setattr(pipeline, "rank", fails)
    lists = page(shop, [TWO[0], {"surface": "pdp_fbt", "items": ["item-1"]}, TWO[1]])
    told = [(one["served_from"], one["degraded"], len(one["items"])) for one in lists]
    assert told == [("live", None, 12), ("vector", "pipeline_failed", 12), ("live", None, 6)]
    shown = [item for one in lists for item in items(one)]
    assert len(shown) == len(set(shown))


def test_late_rows_cost_a_page_one_deadline_not_one_per_list(shop: Shop) -> None:
    shop.features.delay_s = 2.0
    lists = page(shop, TWO * 3)
    assert {one["degraded"] for one in lists} == {"features_unavailable"}
    assert all(one["items"] for one in lists)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "surfaces"),
        ({"surfaces": []}, "surfaces"),
        ({"surfaces": TWO * 5}, "surfaces"),
        ({"surfaces": {"surface": "pdp_fbt"}}, "surfaces"),
        ({"surfaces": ["pdp_fbt"]}, "surfaces[0]"),
        ({"surfaces": [TWO[0], {"surface": "pdp"}]}, "surfaces[1].surface"),
        ({"surfaces": [{"surface": "pdp_fbt", "items": ["a", 3]}]}, "surfaces[0].items[1]"),
        ({"surfaces": [{"surface": "pdp_fbt", "cart": []}]}, "surfaces[0].cart"),
        ({"surfaces": [{"limit": 3}]}, "surfaces[0].surface"),
        ({"surfaces": TWO, "limit": 3}, "limit"),
        ({"surfaces": TWO, "items": []}, "items"),
        ({"surfaces": TWO, "user_id": 7}, "user_id"),
        ({"surfaces": TWO, "fields": ["margin"]}, "fields"),
    ],
)
def test_a_wrong_page_is_refused_by_the_field_that_is_wrong(
    shop: Shop, body: dict[str, Any], named: str
) -> None:
    response = shop.post("/v1/page", body)
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["field"] == named and error["allowed"] and error["next"]


def test_slots_carry_what_is_asked_of_the_catalogue_and_nothing_else(shop: Shop) -> None:
    names = list(SHOWN)
    rail = page(shop, TWO, fields=names)[1]
    slot = rail["items"][0]
    number = int(slot["item_id"][5:])
    assert (slot["title"], slot["price"], slot["brand"]) == (
        *(f"Item {number}", 5.0 + number % 100, f"brand {number % 7}"),
    )
    assert set(slot) == {"item_id", "slot", "score", "source", *names}
    by_query = shop.client.get("/v1/recommend?surface=pdp_fbt&fields=title,price").json()["items"][0]
    ranked = shop.post("/v1/rank", {**HERO, "items": ["item-1"], "fields": ["title", "title"]}).json()
    assert set(by_query) == {"item_id", "slot", "score", "source", "title", "price"}
    assert ranked["items"][0]["title"] == "Item 1"
    for wrong in ("fields=", "fields=margin", "fields=title,stock", "fields=title&fields=price"):
        refused = shop.client.get(f"/v1/recommend?surface=pdp_fbt&{wrong}")
        assert refused.status_code == 422 and refused.json()["error"]["field"] == "fields"


def test_an_unknown_price_is_null_and_so_is_all_of_a_product_that_left(shop: Shop) -> None:
    held = shop.features.matrix
    gone = held.ids[0]
    catalogue = dict(held.shown) | {"price": [float("nan")] * len(held)}
    columns = {name: getattr(held, name) for name in ("margin", "stock", "available_from")}
    columns["category_path"] = [held.categories[code] for code in held.category]
    shop.features.matrix = held.listed(np.arange(len(held)), columns | catalogue)
    shop.features.matrix.shown["title"] = [None, *held.shown["title"][1:]]
    found = shop.post("/v1/rank", {**HERO, "items": [gone], "fields": ["title", "price"]}).json()["items"][0]
    assert found["title"] is None and found["price"] is None
