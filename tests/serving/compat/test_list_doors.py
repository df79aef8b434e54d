"""Lists for clients of Gorse and Metarank: their forms, the storefront's own items."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from shops.storefront import (
    CATALOGUE_KEY,
    Shop,
    ask,
    give_keys,
    items,
    make_home,
    metric,
    open_shop,
    session_row,
    user_row,
)

from feature_repo.eventlog.keys import stream_key


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def shop(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as opened:
        opened.features.users["u1"] = user_row(("product_viewed", "item-3"))
        opened.features.sessions["u1"] = session_row(("product_viewed", "item-5"), session="u1")
        yield opened


def without_tail(shop: Shop, **fields: Any) -> list[str]:
    """The list of /v1/recommend without its last slot, which may be the long tail's of the day."""
    return items(ask(shop, **fields))[:-1]


@pytest.mark.parametrize("path", ["u1?n=6", "u1/?n=6&offset=0"])
def test_gorse_is_answered_with_ids_in_the_order_of_the_storefront(shop: Shop, path: str) -> None:
    answer = shop.client.get(f"/compat/gorse/api/recommend/{path}")
    found = answer.json()
    assert len(found) == 6 and len(answer.headers["x-request-id"]) == 51  # signed
    assert found[:-1] == without_tail(shop, user_id="u1", session_id="u1", limit=6)


def test_gorse_scores_where_the_client_asks_for_its_second_version(shop: Shop) -> None:
    headers = {"x-api-version": "2"}
    found = shop.client.get("/compat/gorse/api/recommend/u1/?n=4&offset=2", headers=headers).json()
    assert [set(one) for one in found] == [{"Id", "Score"}] * 4
    expected = without_tail(shop, user_id="u1", session_id="u1", limit=6)[2:]
    assert [one["Id"] for one in found][:-1] == expected


def test_gorse_session_steers_by_its_items_and_leaves_them_out(shop: Shop) -> None:
    rows = [{"FeedbackType": "read", "UserId": "", "ItemId": name} for name in ("item-1", "item-2")]
    found = shop.client.post("/compat/gorse/api/session/recommend?n=5", json=rows).json()
    assert len(found) == 5
    expected = without_tail(
        shop, surface="pdp_fbt", user_id=None, session_id=None, items=["item-1", "item-2"], limit=5
    )
    assert [one["Id"] for one in found][:-1] == expected
    assert not {"item-1", "item-2"} & {one["Id"] for one in found}


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [("u1?n=x", 400, "n"), ("u1?n=-1", 400, "n"), ("u1/shoes", 501, "category"), ("%00", 422, "user_id")],
)
def test_what_gorse_may_not_ask_is_refused_by_name(shop: Shop, path: str, status: int, field: str) -> None:
    answer = shop.client.get(f"/compat/gorse/api/recommend/{path}")
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field)


def test_more_than_there_is_ends_the_list_and_is_no_error(shop: Shop) -> None:
    assert len(shop.client.get("/compat/gorse/api/recommend/u1?n=100000").json()) > 20
    assert shop.client.get("/compat/gorse/api/recommend/u1?n=5&offset=99999").status_code == 200


def test_metarank_ranks_every_item_and_puts_unknown_ones_last(shop: Shop) -> None:
    given = ["item-7", "nowhere", "item-1", "item-2"]
    body = {"id": "r1", "timestamp": "1599391467000", "user": "u1", "session": "u1"}
    body["items"] = [{"id": item, "fields": []} for item in given]  # type: ignore[assignment]
    found = shop.post("/compat/metarank/rank/xgboost?explain=true", body).json()
    ranked = [one["item"] for one in found["items"]]
    same = shop.post(
        "/v1/rank", {"surface": "category_sort", "user_id": "u1", "session_id": "u1", "items": given}
    )
    assert ranked == [*items(same.json()), "nowhere"]
    scores = [one["score"] for one in found["items"]]
    assert scores == sorted(scores, reverse=True) and type(found["took"]) is int


def test_metarank_recommends_by_model_or_by_what_it_is_given(shop: Shop) -> None:
    similar = shop.post("/compat/metarank/recommend/similar", {"count": 5, "items": ["item-4"]}).json()
    expected = without_tail(
        shop, surface="similar_items", user_id=None, session_id=None, items=["item-4"], limit=5
    )
    assert [one["item"] for one in similar["items"]][:-1] == expected
    assert shop.post("/compat/metarank/recommend/cart_upsell", {"user": "u1"}).status_code == 200
    refused = shop.post("/compat/metarank/recommend/x", {"count": 0})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "limit")


@pytest.mark.parametrize("path", ["recommend/u1?n=6", "popular", "item/item-1/neighbors"])
def test_a_head_shows_nobody_a_list(shop: Shop, path: str) -> None:
    def made() -> float:
        return sum(
            metric("endcap_answers_total", surface=surface, arm="champion", served_from="live")
            for surface in ("homepage_hero", "similar_items")
        )

    before = made()
    answer = shop.client.head(f"/compat/gorse/api/{path}")
    assert (answer.status_code, answer.content) == (200, b"") and made() == before
    assert "x-request-id" not in answer.headers
    assert shop.client.get(f"/compat/gorse/api/{path}").status_code == 200 and made() == before + 1


ITEM = {
    "ItemId": "new",
    "Categories": ["Home", "Mugs"],
    "Labels": {"title": "Mug", "price": 7.5},
    "IsHidden": True,
    "Timestamp": "2026-01-31T12:00:00Z",
}
TOLD = {
    "event": "item",
    "id": "e",
    "timestamp": "1599391467000",
    "item": "new",
    "fields": [{"name": "title", "value": "Mug"}, {"name": "category", "value": ["Home", "Mugs"]}],
}


CHANGES = (
    ("POST", "/compat/gorse/api/item", ITEM),
    ("POST", "/compat/gorse/api/items", [ITEM]),
    ("PATCH", "/compat/gorse/api/item/new", {"IsHidden": True}),
    ("DELETE", "/compat/gorse/api/item/new", None),
    ("POST", "/compat/metarank/feedback", [TOLD]),
)


def listed(shop: Shop) -> list[dict[str, Any]]:
    """What was said of items, in the order of the partitions' logs."""
    entries = [entry for p in range(4) for _, entry in shop.redis.xrange(stream_key(p)) if b"only" in entry]
    found = [orjson.loads(entry[b"event"]) for entry in entries]
    return sorted(({"item_id": one["item_id"], **one["said"]} for one in found), key=lambda one: len(one))


@pytest.mark.parametrize(("key", "status"), [(None, 403), (CATALOGUE_KEY, 401)])
def test_items_are_refused_without_the_catalogue_key(shop: Shop, key: str | None, status: int) -> None:
    give_keys(shop, catalogue={"": (key,) if key else ()})
    for method, path, body in CHANGES:
        answer = shop.client.request(method, path, json=body, headers={"X-API-Key": "another"})
        assert answer.status_code == status
        assert answer.json()["error"]["field"] == "authorization"
    beside = [
        TOLD,
        {**TOLD, "event": "interaction", "id": "i", "item": "item-1", "user": "u", "type": "view"},
    ]
    assert shop.client.post("/compat/metarank/feedback", json=beside).status_code == 200
    assert listed(shop) == []


def test_items_go_through_the_door_of_the_catalogue(shop: Shop) -> None:
    gorse, bearer = {"X-API-Key": CATALOGUE_KEY}, {"Authorization": f"Bearer {CATALOGUE_KEY}"}
    items = shop.client.post("/compat/gorse/api/items", json=[ITEM, {}], headers=gorse)
    assert items.json() == {"RowAffected": 1}
    assert shop.client.delete("/compat/gorse/api/item/old", headers=gorse).json() == {"RowAffected": 1}
    feedback = shop.client.post("/compat/metarank/feedback", json=TOLD, headers=bearer)
    assert feedback.json()["accepted"] == 1
    both = {"item_id": "new", "title": "Mug", "category_path": "Home/Mugs", "deleted": False}
    theirs = {**both, "price": 7.5, "available_from": 1_769_860_800_000_000, "stock": 0}
    assert listed(shop) == [{"item_id": "old", "deleted": True}, both, theirs]


def test_users_are_known_by_what_they_do(shop: Shop) -> None:
    assert shop.client.post("/compat/gorse/api/user", json={"UserId": "u"}).json() == {"RowAffected": 0}
