"""What each event of each system becomes, and what is dropped, on bodies by the public shapes."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shops.effort import effort
from shops.payloads import payloads

from feature_repo.clock import micros
from feature_repo.params import load
from feature_repo.vocabulary.naming import event_id
from serving.payloads import identity
from serving.payloads.identity import of_line, of_order
from serving.payloads.payload import Dropped
from serving.payloads.terms import Terms

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
ALL = payloads(AT)
NAMES = ("type", "item_id", "user_id", "session_id", "event_id", "price", "quantity", "position", "list_name")
NAMES += ("request_id", "query")
D: Any = None
GOLDEN: dict[str, tuple[list[tuple[Any, ...]], dict[str, int]]] = {
    "ga4": (
        [
            ("impression", "SKU_1", "U1", "123.456.7", "*", 9.99, D, 1, "Related", D, D),
            ("impression", "SKU_2", "U1", "123.456.7", "*", 3.5, D, 2, "Related", D, D),
            ("add_to_cart", "SKU_1", "U1", "123.456.7", "*", 9.99, 2, 1, D, D, D),
            ("search", D, "U1", "123.456.7", "*", D, D, D, D, D, "shirt"),
            ("purchase_completed", "SKU_1", "U1", "123.456.7", "purchase:T1:001", 9.99, 2, 1, D, D, D),
            ("purchase_completed", "SKU_2", "U1", "123.456.7", "purchase:T1:002", 3.5, 1, 2, D, D, D),
        ],
        {"return": 1, "unknown_event": 1},
    ),
    "gtag": (
        [
            ("purchase_completed", "SKU_1", "U1", "123.456.7", "purchase:T1:001", 9.99, 2, D, D, D, D),
            ("purchase_completed", "SKU_2", "U1", "123.456.7", "purchase:T1:002", 3.5, 1, 1, D, D, D),
            ("impression", "SKU_1", "U1", "123.456.7", "*", 9.99, D, 1, "Related", D, D),
            ("impression", "Unnamed", "U1", "123.456.7", "*", 3.5, D, 2, "Related", D, D),
            ("click", "SKU_1", "U1", "123.456.7", "*", D, D, 3, "Sale", D, D),
            ("add_to_cart", "SKU_1", "U1", "123.456.7", "*", 9.99, 2, D, D, D, D),
            ("add_to_cart", "SKU_1", "U1", "123.456.7", "*", 9.99, 2, D, D, D, D),
            ("search", D, "U1", "123.456.7", "*", D, D, D, D, D, "red shirt"),
        ],
        {"return": 1, "unknown_event": 1},
    ),
    "gtm": ([("click", "SKU_2", "123.456", "123.456.7", "*", 3.5, D, 3, "search_results", D, D)], {}),
    "ga4 export": ([("product_viewed", "SKU_1", "123.456", "123.456.7", "*", 9.99, D, 1, D, D, D)], {}),
    "segment": (
        [
            ("product_viewed", "507f", "U1", "a1", "m1", 18.99, D, 3, D, D, D),
            ("impression", "507f", "U1", "a1", "m2", 18.99, D, 1, "hot_deals_1", D, D),
            ("purchase_completed", "507f", "U1", "a1", "purchase:50314b8e:001", 18.99, 1, D, D, D, D),
            ("purchase_completed", "505b", "U1", "a1", "purchase:50314b8e:002", 18.99, 1, D, D, D, D),
            ("search", D, "U1", "a1", "m4", D, D, D, D, D, "blue"),
            ("click", "507f", "U1", "a1", "m5", 18.99, 1, D, D, D, D),
        ],
        {"unknown_event": 1},
    ),
    "snowplow": (
        [
            ("purchase_completed", "P1", "U1", "d1.s9", "purchase:T9:001", 5.0, 2, D, D, D, D),
            ("impression", "P1", "U1", "d1.s1", "e2", 5.0, D, D, "frequently bought with", D, D),
        ],
        {"unknown_event": 1},
    ),
    "shopify": (
        [
            ("product_viewed", "tee", "c1", "c1", "x1", 9.9, D, D, D, D, D),
            ("add_to_cart", "tee", "c1", "c1", "x2", 9.9, 1, D, D, D, D),
            ("impression", "tee", "c1", "c1", "x4", 9.9, D, 1, "Sale", D, D),
            ("search", D, "c1", "c1", "x5", D, D, D, D, D, "tee"),
            ("purchase_completed", "tee", "c1", "c1", "purchase:99:001", 9.9, 2, D, D, D, D),
            ("remove_from_cart", "tee", "c1", "c1", "x7", 9.9, 1, D, D, D, D),
        ],
        {"no_product": 1, "unknown_event": 1},
    ),
    "metarank": (
        [
            ("impression", "item3", "u1", "s1", "81f4:001", D, D, 1, "search", D, D),
            ("impression", "item1", "u1", "s1", "81f4:002", D, D, 2, "search", D, D),
            ("click", "item1", "u1", "s1", "0f4c:001", D, D, D, D, D, D),
            ("product_viewed", "item1", "u1", "s1", "0f4c:002", D, D, D, D, D, D),
            ("purchase_completed", "item1", "u1", "s1", "0f4d", 4.0, 2, D, D, D, D),
        ],
        {"unknown_event": 2},
    ),
    "gorse": ([("product_viewed", "i", "u", "u", "*", D, D, D, D, D, D)], {"unknown_event": 1}),
    "algolia": (
        [
            ("click", "o1", "u", "u", "*", D, D, 1, D, D, D),
            ("impression", "o1", "u", "u", "*", D, D, D, D, D, D),
            ("impression", "o2", "u", "u", "*", D, D, D, D, D, D),
            ("purchase_completed", "o1", "u", "u", "*", 9.9, 2, D, D, D, D),
        ],
        {"unknown_event": 1},
    ),
    "google": ([("purchase_completed", "1", "U1", "v.s", "purchase:P7:001", D, 3, D, D, D, D)], {}),
    "ubi": (
        [
            ("search", D, "c", "c", "q1:000", D, D, D, D, D, "shirt"),
            ("impression", "SKU1", "c", "c", "q1:001", D, D, 1, D, D, D),
            ("impression", "SKU2", "c", "c", "q1:002", D, D, 2, D, D, D),
            ("click", "SKU2", "c", "c", "*", D, D, 2, D, D, D),
            ("product_viewed", "SKU2", "c", "c", "*", D, D, D, D, D, D),
        ],
        {"unknown_event": 1},
    ),
}


def translated(name: str, terms: Terms) -> tuple[list[dict[str, Any]], Counter[str]]:
    _, read, body = ALL[name]
    found: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    for one in read.events(body):
        try:
            found += read.translate(one, terms)
        except Dropped as why:
            dropped[why.args[0]] += 1
    return found, dropped


@pytest.mark.parametrize("name", GOLDEN)
def test_every_event_of_a_body_becomes_what_it_says(name: str) -> None:
    events, dropped = translated(name, load("compat", Terms))
    expected, left = GOLDEN[name]
    shown = [tuple(event.get(field) for field in NAMES) for event in events]
    given = [
        tuple("*" if e == "*" else s for s, e in zip(row, want, strict=True))
        for row, want in zip(shown, expected, strict=True)
    ]
    assert given == expected
    assert dropped == left
    at = None if name == "gtag" else micros(AT)  # a tag tells no time: an event is of when it arrives
    assert {event["event_ts"] for event in events} == {at}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_ids_of_a_body_are_all_different_and_those_of_a_resend_the_same(name: str) -> None:
    terms = load("compat", Terms)
    ids = [event["event_id"] for event in translated(name, terms)[0]]
    assert len(set(ids)) == len(ids)
    assert ids == [event["event_id"] for event in translated(name, terms)[0]]


def test_nothing_of_a_person_but_ids_is_taken_over() -> None:
    for name in GOLDEN:
        assert "jo@example.com" not in repr(translated(name, load("compat", Terms)))


def test_an_export_says_device_country_channel_and_a_refusal() -> None:
    (event,), _ = translated("ga4 export", load("compat", Terms))
    assert (event["device"], event["country"], event["channel"], event["consent"]) == (
        *("mobile", "Norway", "paid search"),
        False,
    )


@given(st.text(max_size=400), st.integers(0, 999))
def test_the_id_of_a_line_is_the_same_however_it_is_made(whole: str, place: int) -> None:
    assert of_order(whole, place) == event_id("purchase", whole, f"{place:03d}")
    assert of_line(whole, place, 2) == event_id(whole, f"{place:03d}")


def test_an_order_id_of_a_body_s_size_is_read_once_and_not_for_every_line() -> None:
    whole = "a" * 900_000

    def lines(many: int) -> None:
        identity._begun.cache_clear()
        assert len({of_order(whole, place) for place in range(many)}) == many

    assert effort(lambda: lines(500)) < 50 * effort(lambda: lines(1))
