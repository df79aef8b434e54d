"""One question, one full list: whatever is late, broken or unknown, and the log says who was shown what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from shops.storefront import HERO, Shop, act, ask, items, make_home, metric, open_shop, session_row, user_row

from feature_repo.assemble.matrix import ACTIVITY
from feature_repo.assemble.vectorize import COLUMNS
from serving import pipeline
from serving.cascade import shortened
from serving.http.api import cache_headers
from serving.rules import published
from serving.rules.document import parse
from serving.stages import bestsellers
from serving.types import Answer


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def shop(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as opened:
        yield opened


def test_an_answer_has_the_fields_of_the_contract(shop: Shop, home: tuple[Path, Path]) -> None:
    answer = ask(shop)
    assert list(answer) == [
        *("request_id", "surface", "items", "arm", "bundle"),
        *("served_from", "degraded", "feature_age_ms", "took_ms"),
    ]
    assert answer["bundle"] == home[1].name and answer["arm"] == "champion"
    assert (answer["served_from"], answer["degraded"], answer["feature_age_ms"]) == ("live", None, None)
    assert [item["slot"] for item in answer["items"]] == list(range(12))
    assert set(answer["items"][0]) == {"item_id", "slot", "score", "source"}
    assert len(set(items(answer))) == 12 and not any(
        i.endswith("9") for i in items(answer)
    )  # 9: out of stock


def test_the_list_follows_the_stored_rows(shop: Shop) -> None:
    cold = ask(shop)
    shop.features.sessions["s1"] = session_row(("product_viewed", "item-3"), ("add_to_cart", "item-8"))
    shop.features.users["u1"] = user_row(("purchase_completed", "item-20"))
    warm = ask(shop)
    assert items(warm) != items(cold)
    assert not {"item-8", "item-20"} & set(items(warm))  # in the cart, bought
    assert 0 < warm["feature_age_ms"] < 60_000


def test_the_feature_age_is_that_of_the_shopper_and_else_of_the_newest_item(shop: Shop) -> None:
    assert ask(shop)["feature_age_ms"] is None  # nothing is stored of anybody or anything
    touched = time.time_ns() // 1000 - 3_600_000_000
    row = {name: [touched if name in ("at", "first_ts") else 1] for name in ACTIVITY}
    held = shop.releases.current.champion.features  # type: ignore[union-attr]
    before = held.matrix
    held.matrix = before.updated(np.array([5]), row)
    try:
        assert ask(shop)["feature_age_ms"] == pytest.approx(3_600_000, abs=20_000)
        shop.features.sessions["s1"] = session_row(("product_viewed", "item-3"))
        assert ask(shop)["feature_age_ms"] == pytest.approx(1_000, abs=20_000)
        assert ask(shop, session_id="nobody", user_id=None)["feature_age_ms"] > 3_000_000
    finally:
        held.matrix = before


@pytest.mark.parametrize("asks", ["u1", None])
def test_a_visit_of_another_shopper_leaves_no_trace_in_the_answer(shop: Shop, asks: str | None) -> None:
    without = ask(shop, user_id=asks)
    row = session_row(("product_viewed", "item-3"), ("add_to_cart", "item-8"))
    shop.features.sessions["s1"] = row | {"owner": "u2"}
    answer = ask(shop, user_id=asks, debug=True)
    assert items(answer) == items(without) and answer["feature_age_ms"] is None
    assert answer["debug"]["removed"] == {}
    assert {values[COLUMNS.index("session_views")] for values in answer["debug"]["features"].values()} == {0}
    own = ask(shop, user_id="u2", debug=True)
    assert "item-8" in own["debug"]["removed"] and own["feature_age_ms"] > 0


def test_what_the_request_names_is_not_recommended_back(shop: Shop) -> None:
    first = items(ask(shop))
    answer = ask(shop, items=first[:1], cart=first[1:2], exclude=first[2:4])
    assert not set(first[:4]) & set(items(answer)) and len(items(answer)) == 12


@pytest.mark.parametrize("limit", [1, 12, 54, 100])
def test_as_many_slots_as_asked_for_or_as_the_catalogue_has(shop: Shop, limit: int) -> None:
    assert len(ask(shop, limit=limit)["items"]) == min(limit, 54)  # 6 of 60 are out of stock


def test_unknown_ids_are_named_and_ignored(shop: Shop) -> None:
    answer = ask(shop, items=["item-1", "no such"], cart=[f"gone {i}" for i in range(25)])
    assert answer["warnings"][0] == "items: 'no such' is not in the catalogue and was ignored"
    assert answer["warnings"][-1] == "cart: 5 more are not in the catalogue"
    assert len(answer["items"]) == 12


def test_debug_gives_the_28_values_of_what_is_shown(shop: Shop) -> None:
    shop.features.sessions["s1"] = session_row(("product_viewed", "item-3"))
    answer = ask(shop, debug=True, items=["item-3"])
    debug = answer["debug"]
    assert debug["columns"] == list(COLUMNS) and set(debug["features"]) == set(items(answer))
    assert all(len(values) == 28 for values in debug["features"].values())
    assert debug["removed"]["item-3"] == "is the item of this page"
    assert debug["features"][items(answer)[0]][COLUMNS.index("session_views")] == 1.0


def test_rank_orders_the_given_items_and_loses_none_that_is_on_sale(shop: Shop) -> None:
    given = ["item-9", "item-4", "item-30", "item-4", "unknown", "item-2"]  # 9: out of stock
    answer = ask(shop, "/v1/rank", surface="category_sort", items=given)
    assert sorted(items(answer)) == ["item-2", "item-30", "item-4"]
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("broken", ["late", "ConnectionError", "bug"])
def test_without_stored_rows_the_answer_is_live_full_and_marked(shop: Shop, broken: str) -> None:
    if broken == "late":
        shop.features.delay_s = 5.0
    else:
        shop.features.error = ConnectionError("down") if broken == "ConnectionError" else KeyError("row")
    answer = ask(shop)
    assert (answer["served_from"], answer["degraded"]) == ("live", "features_unavailable")
    assert len(answer["items"]) == 12 and answer["took_ms"] < 500


def test_after_three_missed_deadlines_the_next_answers_do_not_wait(shop: Shop) -> None:
    shop.features.delay_s = 5.0
    for _ in range(3):
        ask(shop)
    assert [ask(shop)["degraded"] for _ in range(5)] == ["features_unavailable"] * 5
    assert shop.features.reads <= 4  # one more where the 250 ms are over
    shop.features.delay_s = 0.0
    time.sleep(0.3)
    assert ask(shop)["degraded"] is None


def test_one_missed_deadline_costs_one_answer_its_history(shop: Shop) -> None:
    shop.features.delay_s = 5.0
    assert ask(shop)["degraded"] == "features_unavailable"
    shop.features.delay_s = 0.0
    assert ask(shop)["degraded"] is None


def test_beyond_the_limit_of_requests_at_once_the_answer_is_bestsellers_not_a_queue(shop: Shop) -> None:
    shop.storefront._in_flight = 48
    shop.features.sessions["s1"] = session_row(("product_viewed", "item-3"))
    answer = ask(shop, exclude=["item-0"])
    assert (answer["served_from"], answer["degraded"], len(answer["items"])) == ("fallback", "overloaded", 12)
    assert shop.features.reads == 0 and "item-0" not in items(answer)
    shop.storefront._in_flight = 47
    assert ask(shop)["served_from"] == "live"


def test_a_broken_pipeline_is_covered_by_the_session_vector(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(pipeline, "retrieve", broken)
    shop.features.sessions["s1"] = session_row(("add_to_cart", "item-8"))
    before = metric("endcap_degraded_total", reason="pipeline_failed")
    answers = [ask(shop, exclude=["item-0"]) for _ in range(3)]
    for answer in answers:
        assert (answer["served_from"], answer["degraded"]) == ("vector", "pipeline_failed")
        assert len(answer["items"]) == 12 and not {"item-0", "item-8", "item-9"} & set(items(answer))
    assert metric("endcap_degraded_total", reason="pipeline_failed") == before + 3
    assert (
        caplog.text.count("ZeroDivisionError: a defect") == 1
    )  # once, with its traceback, not once a request


def test_when_even_bestsellers_fail_the_rail_of_the_bundle_answers(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    for module in (pipeline, bestsellers, shortened):
        monkeypatch.setattr(module, "eligibility", broken)
    answer = ask(shop, exclude=["item-59"])
    assert items(answer)[:3] == ["item-58", "item-57", "item-56"] and answer["served_from"] == "fallback"


def test_rank_keeps_the_order_of_the_storefront_when_the_ranker_fails(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(pipeline, "rank", broken)
    answer = ask(shop, "/v1/rank", items=["item-8", "item-9", "item-4"])  # 9: out of stock
    assert items(answer) == ["item-8", "item-4"] and answer["served_from"] == "fallback"


def test_the_holdout_gets_bestsellers(
    home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url, holdout=1.0) as shop:
        shop.features.sessions["s1"] = session_row(("add_to_cart", "item-8"))
        answer = ask(shop)
        assert (answer["arm"], answer["served_from"], answer["degraded"]) == ("holdout", "precomputed", None)
        assert {item["source"] for item in answer["items"]} == {"popular"} and "item-8" not in items(answer)
        assert ask(shop, user_id=None, session_id=None)["arm"] == "champion"  # nobody to hold out


def test_a_replay_answers_as_of_and_else_at_the_newest_event(
    home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url, replay=True) as shop:
        shop.redis.set("endcap:applied_ts", 1_476_662_400_000_000)
        assert ask(shop, debug=True)["debug"]["now"] == 1_476_662_400_000_000
        assert ask(shop, debug=True, as_of=1_476_000_000_000_000)["debug"]["now"] == 1_476_000_000_000_000
        assert ask(shop, as_of=4_000_000_000_000_000)["items"]


def test_rules_hold_by_the_clock_of_the_data_too(
    home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url, replay=True) as shop:
        shop.redis.set("endcap:applied_ts", 1_476_662_400_000_000)
        pin = {"id": "hero", "do": {"pin": {"items": ["item-3"], "slots": [0]}}}
        before = published.read(shop.redis)
        published.publish(shop.redis, parse(orjson.dumps({"rules": [pin]})), act("a look"), before)
        asyncio.run(shop.rulebook.poll())
        first = ask(shop)["items"][0]
        assert (first["item_id"], first["rule"]) == ("item-3", "hero")


def test_as_of_outside_a_replay_is_ignored_and_said_so(shop: Shop) -> None:
    answer = ask(shop, debug=True, as_of=1_476_000_000_000_000)
    assert answer["debug"]["now"] > 1_700_000_000_000_000 and "as_of" in answer["warnings"][0]


def test_a_get_says_the_same_and_may_be_kept_by_the_edge_but_by_nobody_else(shop: Shop) -> None:
    anybody = {"surface": HERO["surface"], "limit": 3}
    got = shop.client.get("/v1/recommend", params=anybody)
    posted = shop.post("/v1/recommend", anybody)
    assert items(got.json()) == items(posted.json())
    assert got.headers["cache-control"] == posted.headers["cache-control"] == "private, no-store"
    assert (got.headers["x-accel-expires"], posted.headers["x-accel-expires"]) == ("90", "0")
    for name in ("user_id", "session_id"):
        own = shop.client.get("/v1/recommend", params={**anybody, name: "somebody"})
        assert own.headers["x-accel-expires"] == "0"
    for degraded, kept in ((None, "90"), ("overloaded", "0")):
        answer = Answer("r", HERO["surface"], (), "champion", "b", "live", degraded, 0, 1.0)
        assert cache_headers(answer, True, 90)["X-Accel-Expires"] == kept


def test_before_the_first_release_the_answer_is_an_honest_503(shop: Shop) -> None:
    shop.releases.current = None
    response = shop.post("/v1/recommend", HERO)
    assert response.status_code == 503 and response.headers["retry-after"] == "1"
    event = {"type": "product_viewed", "session_id": "early", "item_id": "item-1"}
    collected = shop.post("/v1/events", {"events": [event]})
    assert (collected.status_code, collected.json()["accepted"]) == (202, 1)
