"""Why a list is as it is: the list is the very one that is served, and what is told of it adds up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from shops.storefront import HERO, SECRET_KEY, Shop, ask, make_home, metric, open_shop, session_row, user_row

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.events import SURFACES

KEY = {"authorization": f"Bearer {SECRET_KEY}"}
WHO: dict[str, dict[str, Any]] = {
    "stranger": {"user_id": None, "session_id": None},
    "returning": {"user_id": "known", "session_id": "new"},
    "visit": {"user_id": "known", "session_id": "seen", "items": ["item-1"]},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[Shop]:
    """In a replay, so that two questions can be asked of one instant."""
    home = make_home(tmp_path_factory.mktemp("home"), 400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_HOME", str(home[0]))
        with open_shop(*home, redis_server, replay=True) as opened:
            seen = ("product_viewed", "item-3"), ("add_to_cart", "item-8")
            opened.features.sessions["seen"] = session_row(*seen, session="seen")
            opened.features.users["known"] = user_row(("purchase_completed", "item-20"))
            yield opened


def explain(shop: Shop, **fields: Any) -> dict[str, Any]:
    response = shop.client.post("/v1/explain", json={**HERO, **fields}, headers=KEY)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("surface", SURFACES)
def test_what_is_explained_is_what_is_served_and_its_terms_add_up(shop: Shop, surface: str, who: str) -> None:
    asked = {**WHO[who], "surface": surface, "as_of": time.time_ns() // 1000, "fields": ["title"]}
    served, told = ask(shop, **asked, debug=True), explain(shop, **asked)
    for name in ("surface", "arm", "bundle", "served_from", "degraded"):
        assert told[name] == served[name]
    assert len(told["items"]) == 12 and told["asked"] == [] and told["warnings"] == []
    for slot, one in zip(served["items"], told["items"], strict=True):
        assert {name: one[name] for name in slot} == slot
        assert sum(term["adds"] for term in one["contributions"]) == pytest.approx(one["score"], abs=1e-4)
        assert one["odds"]["score"] == pytest.approx(one["score"], abs=1e-4)
        assert list(one["values"]) == list(COLUMNS)
        assert list(one["values"].values()) == served["debug"]["features"][slot["item_id"]]
        assert one["source"] == "tail" or one["source"] in [source["source"] for source in one["sources"]]
        assert 1 <= one["retrieved"] <= told["candidates"] and one["popularity"] is not None
    if who == "stranger" and surface == "homepage_hero":
        assert told["phase"] == "stranger" and any(one["odds"]["attraction"] for one in told["items"])


def test_the_largest_contribution_comes_first_and_names_its_value(shop: Shop) -> None:
    for one in explain(shop, **WHO["visit"])["items"]:
        sizes = [abs(term["adds"]) for term in one["contributions"]]
        assert sizes == sorted(sizes, reverse=True)
        assert {term["name"] for term in one["contributions"]} <= {*COLUMNS, "base", "attraction", "place"}
        for term in one["contributions"]:
            assert term["value"] == one["values"].get(term["name"], term["value"])


def test_nobody_was_shown_what_is_explained(shop: Shop) -> None:
    def counted() -> tuple[int, float]:
        kind = {"surface": "homepage_hero", "arm": "champion", "served_from": "live"}
        return len(shop.exposures), metric("endcap_answers_total", **kind)

    before = counted()
    explain(shop, item_ids=["item-5"])
    assert counted() == before
    ask(shop)
    assert counted()[0] > before[0] and counted()[1] == before[1] + 1


def test_a_list_without_models_is_explained_by_popularity(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no retrieval today")

    for step in ("serving.pipeline.retrieve", "serving.cascade.rungs.by_vector"):
        monkeypatch.setattr(step, fail)
    served, told = ask(shop), explain(shop, item_ids=["item-9", "item-300"])
    assert (told["served_from"], told["degraded"]) == ("fallback", "pipeline_failed")
    assert [one["item_id"] for one in told["items"]] == [one["item_id"] for one in served["items"]]
    assert all(one["contributions"] is None and one["sources"] == [] for one in told["items"])
    assert [(one["stage"], one["by"]) for one in told["asked"]] == [("eligibility", None), ("ranking", 0.0)]


@pytest.mark.parametrize("key", [None, "wrong", ""])
def test_without_the_secret_key_nobody_is_told_anything(shop: Shop, key: str | None) -> None:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    refused = shop.client.post("/v1/explain", json=HERO, headers=headers)
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    told = "an unknown key" if key == "wrong" else "Bearer and the secret key"
    assert told in refused.text and SECRET_KEY not in refused.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"item_ids": "item-1"}, "item_ids"),
        ({"item_ids": ["a\n"]}, "item_ids[0]"),
        ({"item_ids": [f"i{n}" for n in range(21)]}, "item_ids"),
        ({"item_ids": [None]}, "item_ids[0]"),
        ({"limit": 0}, "limit"),
        ({"item_id": "item-1"}, "item_id"),
    ],
)
def test_a_wrong_field_is_named(shop: Shop, body: dict[str, Any], field: str) -> None:
    refused = shop.client.post("/v1/explain", json=HERO | body, headers=KEY)
    assert refused.status_code == 422 and refused.json()["error"]["field"] == field
