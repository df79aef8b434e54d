"""The door for items: the catalogue key opens it, each wrong item is named, none costs the others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops.storefront import CATALOGUE_KEY, Shop, give_keys, make_home, metric, open_shop

from feature_repo import events
from feature_repo.clock import micros
from feature_repo.errors import EventError, ParamsError
from feature_repo.eventlog.keys import ITEM_CHANGE, partition_of, stream_key
from feature_repo.features import item_check
from feature_repo.files import secrets_in
from feature_repo.ports import token, tokens_file
from pipelines.stream.apply import parse
from pipelines.stream.said import Change
from serving.errors import RequestError
from serving.http.ingress import Clock
from serving.http.listing import canonical_change, parse_changes

KEY = CATALOGUE_KEY
OPEN = {"authorization": f"Bearer {KEY}"}
CLOCK = Clock(1_790_000_000_000_000, 1_790_000_000_000_000, 1_780_000_000_000_000, 1_790_000_300_000_000)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def shop(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as opened:
        yield opened


def said(shop: Shop, *items: Any, headers: dict[str, str] = OPEN, path: str = "/v1/items") -> Any:
    return shop.client.post(path, json={"items": list(items)}, headers=headers)


def log(shop: Shop) -> list[tuple[int, dict[str, Any], bytes]]:
    return [
        (p, orjson.loads(fields[b"event"]), fields[b"only"])
        for p in range(4)
        for _, fields in shop.redis.xrange(stream_key(p))
    ]


def test_a_change_is_in_the_partition_of_its_item_with_what_it_names_and_nothing_else(shop: Shop) -> None:
    before = time.time_ns() // 1000
    answer = said(shop, {"item_id": "item-1", "price": 3, "brand": None}, {"item_id": "b", "deleted": True})
    assert (answer.status_code, answer.json()) == (202, {"accepted": 2, "rejected": []})
    found = {entry["item_id"]: (p, entry, only) for p, entry, only in log(shop)}
    for item, expected in (
        ("item-1", {"price": 3.0, "brand": None, "deleted": False}),
        ("b", {"deleted": True}),
    ):
        p, entry, only = found[item]
        assert (p, only, entry["type"]) == (partition_of(item, 4), b"items", ITEM_CHANGE)
        assert entry["said"] == expected and before <= entry["event_ts"] <= time.time_ns() // 1000


def test_the_wrong_ones_are_named_by_index_and_the_others_accepted(shop: Shop) -> None:
    before = metric("endcap_item_changes_total", outcome="rejected")
    answer = said(shop, {"item_id": "a", "stock": 1}, {"item_id": "b", "stock": -1}, "no object")
    assert answer.status_code == 202
    assert answer.json() == {
        "accepted": 1,
        "rejected": [
            {
                "index": 1,
                "item_id": "b",
                "field": "stock",
                "value": "-1",
                "allowed": "a whole number from 0 to 2147483647",
            },
            {"index": 2, "item_id": None, "field": "item", "value": "'no object'", "allowed": "an object"},
        ],
    }
    assert metric("endcap_item_changes_total", outcome="rejected") == before + 2
    answer = said(shop, {"item_id": "b", "stock": -1})
    assert answer.status_code == 422 and answer.json()["accepted"] == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stock": True}, "stock: True is not allowed"),
        ({"price": float("1e10")}, "price: 10000000000.0 is not allowed; allowed: a finite number from 0"),
        ({"margin": 1.5}, "margin: 1.5"),
        ({"title": None}, "title: None is not allowed; allowed: text; leave title out"),
        ({"title": "a\nb"}, "title: 'a\\nb'"),
        ({"currency": "eur"}, "currency: 'eur' is not allowed; allowed: three capital letters"),
        ({"accessories": ["a", 1]}, "accessories: ['a', 1]"),
        ({"accessories": ["\ud83c"]}, "text with half a character"),
        ({"available_from": "soon"}, "available_from: 'soon'"),
        ({"available_from": "1999-01-01T00:00:00Z"}, "available_from"),
        ({"colour": "red"}, "colour: 'red' is not allowed; allowed: the fields item_id, title"),
        ({"deleted": 1}, "deleted: 1 is not allowed; allowed: true or false"),
        ({"deleted": True, "price": 1}, "price: 1 is not allowed; allowed: nothing beside item_id"),
        ({}, "at least one field beside item_id"),
        ({"stock": 1, "event_ts": 1}, "event_ts: 1 is not allowed"),
        ({"stock": 1, "event_ts": 1_795_000_000_000_000}, "event_ts: '2026-11"),
        ({"item_id": "a\x00", "stock": 1}, "item_id: 'a\\x00'"),
    ],
)
def test_each_field_has_its_limits(change: dict[str, Any], told: str) -> None:
    with pytest.raises(EventError) as refused:
        canonical_change({"item_id": "a", **change}, CLOCK)
    assert told in str(refused.value)


def test_the_door_and_the_import_share_their_limits() -> None:
    assert set(item_check.ITEM_TEXTS) | set(item_check.ITEM_NUMBERS) < set(events.ITEM_NAMES)
    for name in events.ITEM_NAMES[1:]:
        with pytest.raises(EventError, match=f"^{name}: "):
            item_check.check_item({"item_id": "a", name: object()})


def test_only_the_catalogue_key_opens_it(shop: Shop) -> None:
    for headers in ({}, {"authorization": "Bearer another"}, {"authorization": f"Basic {KEY}"}):
        answer = said(shop, {"item_id": "a", "stock": 1}, headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert KEY not in answer.text and "the catalogue key, or the secret one" in answer.text
    assert log(shop) == []


def test_without_a_configured_key_it_is_shut_and_says_what_to_do(
    home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as shop:
        give_keys(shop)
        answer = said(shop, {"item_id": "a", "stock": 1})
    assert answer.status_code == 403 and "endcap up" in answer.json()["error"]["next"]


def test_the_key_is_of_the_environment_or_of_a_file_that_nobody_else_reads(
    home: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    assert token("catalogue") is None
    secrets_in(tokens_file(), "catalogue")
    made = token("catalogue")
    assert made and len(made) > 40 and tokens_file().stat().st_mode & 0o777 == 0o600
    secrets_in(tokens_file(), "catalogue")
    assert token("catalogue") == made and token("other") is None
    monkeypatch.setenv("ENDCAP_CATALOGUE_TOKEN", "given-to-the-shop")
    assert token("catalogue") == "given-to-the-shop"
    monkeypatch.delenv("ENDCAP_CATALOGUE_TOKEN")
    tokens_file().chmod(0o644)
    with pytest.raises(ParamsError, match=r"mode 044 lets others in; allowed: 600. Next: chmod 600"):
        token("catalogue")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"items": []}', "a list of 1 to 3 items"),
        (b'{"items": [1, 2, 3, 4]}', "4 items"),
        (b'{"item": []}', "the field items"),
        (b"[]", "a JSON object"),
        (b'{"items": [{"item_id": "a", "item_id": "b"}]}', "each key once"),
    ],
)
def test_a_body_is_a_list_of_items(body: bytes, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        parse_changes(body, 3)


def test_a_method_and_a_wait_that_are_none_are_told(shop: Shop) -> None:
    assert shop.client.get("/v1/items").status_code == 405
    answer = said(shop, {"item_id": "a", "stock": 1}, path="/v1/items?wait=2")
    assert answer.status_code == 422 and "0 or 1" in answer.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMED = st.sampled_from([*events.ITEM_NAMES, "deleted", "event_ts", "other"])
GOOD = st.fixed_dictionaries(
    {"item_id": st.text(min_size=1, max_size=5)},
    optional={
        "price": st.floats(0, 1e9),
        "stock": st.integers(0, 2**31 - 1),
        "title": st.text(min_size=1, max_size=9),
        "available_from": st.integers(946_684_800_000_000, 4_102_444_799_999_999) | st.none(),
        "accessories": st.lists(st.text(min_size=1, max_size=3), max_size=3),
        "deleted": st.booleans(),
    },
)


@settings(max_examples=10_000, deadline=None)
@given(st.dictionaries(NAMED, JSON, max_size=4) | GOOD | JSON)
def test_no_document_is_anything_but_accepted_or_refused_by_name(raw: Any) -> None:
    try:
        entry = canonical_change(raw, CLOCK)
    except EventError as error:
        assert isinstance(error.field, str) and error.allowed
        return
    change = parse(orjson.dumps(entry))
    assert isinstance(change, Change) and (change.item, change.ts) == (entry["item_id"], entry["event_ts"])
    assert micros(events.EARLIEST) <= change.ts
