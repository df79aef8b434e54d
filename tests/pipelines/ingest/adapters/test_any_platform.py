"""Whatever a platform's files hold: rows in are rows out and those left, or one DataError says why."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops.platforms import csv_of, imported

from feature_repo.errors import DataError
from pipelines.ingest.adapters.adapters import ADAPTERS
from pipelines.ingest.adapters.platform import Platform
from pipelines.ingest.adapters.shopify import Shopify
from pipelines.ingest.adapters.woocommerce import WooCommerce

FUZZ = settings(max_examples=int(os.environ.get("ENDCAP_FUZZ", "200")) // 8, deadline=None)
WORDS = [
    "",
    "a",
    "(not set)",
    "view_item",
    "purchase",
    "completed",
    "#1",
    "12.5",
    "-1",
    "9,50 EUR",
    "[]",
    "0",
    "\ud83c",
]
TIMES = ["1769860800000000", "2026-01-31T12:00:00", "2026-01-31 13:00:00 +0100", "soon"]
KEYS = [
    *(
        "event_timestamp",
        "event_name",
        "event_params",
        "user_pseudo_id",
        "items",
        "item_id",
        "key",
        "value",
        "price",
    ),
    *("ga_session_id", "int_value", "device", "ecommerce", "transaction_id", "item_list_index", "quantity"),
    *(
        "id",
        "status",
        "date_created_gmt",
        "line_items",
        "billing",
        "email",
        "customer_id",
        "product_id",
        "name",
    ),
    *("anonymous_id", "timestamp", "received_at", "products", "order_id", "sku", "position"),
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([*WORDS, *TIMES, *KEYS]),
    st.text(max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=12,
)
RECORDS = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=3), max_size=2)


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A value whose parts are the given ones, but one that is anything."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(value)))
        return value | {key: draw(mutated(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(mutated(value[at])), *value[at + 1 :]]
    return draw(VALUES)


def tried(adapter: str, files: dict[str, bytes], mapping: str | None = None) -> None:
    """Counts that do not add up are AssertionErrors; any error but DataError goes through."""
    with TemporaryDirectory() as name:
        for path, content in files.items():
            (Path(name) / path).write_bytes(content)
        try:
            imported(adapter, Path(name), mapping=mapping)
        except DataError as error:
            assert str(error)


GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "ga4": (
        "events.jsonl",
        {
            "event_timestamp": TIMES[0],
            "event_name": "purchase",
            "user_pseudo_id": "c1",
            "event_params": [{"key": "ga_session_id", "value": {"int_value": "7"}}],
            "device": {"category": "mobile"},
            "ecommerce": {"transaction_id": "T1"},
            "items": [
                {"item_id": name, "price": 9.5, "quantity": 1, "item_list_index": "0"} for name in "ab"
            ],
        },
    ),
    "woocommerce": (
        "orders.jsonl",
        {
            "id": 1,
            "status": "completed",
            "date_created_gmt": TIMES[1],
            "billing": {"email": "a@x.example"},
            "line_items": [{"product_id": n, "name": "Mug", "price": 9.5, "quantity": 1} for n in (5, 6)],
        },
    ),
    "segment": (
        "order_completed.jsonl",
        {
            "anonymous_id": "a",
            "timestamp": TIMES[1],
            "order_id": "o1",
            "products": [{"product_id": name, "price": 9.5, "quantity": 1} for name in "ab"],
        },
    ),
}


@pytest.mark.parametrize("adapter", GOOD)
@FUZZ
@given(data=st.data())
def test_any_nested_values(adapter: str, data: st.DataObject) -> None:
    name, good = GOOD[adapter]
    records = data.draw(st.lists(mutated(good), min_size=1, max_size=3)) + data.draw(RECORDS)
    tried(adapter, {name: "\n".join(json.dumps(record) for record in [good, *records]).encode()})


@pytest.mark.parametrize("kind", [Shopify, WooCommerce])
@FUZZ
@given(data=st.data())
def test_any_cells(kind: type[Platform], data: st.DataObject) -> None:
    words = st.sampled_from([*WORDS[:-1], *TIMES]) | st.text(max_size=4)
    files = {}
    for part, name in (("events", "orders.csv"), ("items", "products.csv")):
        columns = [
            *kind.needed[part],
            *data.draw(st.sets(st.sampled_from([*kind.optional.get(part, ()), "x"]))),
        ]
        rows = st.lists(st.lists(words, min_size=len(columns), max_size=len(columns)), min_size=1, max_size=4)
        files[name] = csv_of(list(dict.fromkeys(columns)), data.draw(rows)).encode("utf-8", "replace")
    if kind is WooCommerce:
        del files["orders.csv"]
        order = {
            "id": 1,
            "status": "completed",
            "date_created_gmt": TIMES[1],
            "line_items": [{"product_id": 1}],
        }
        files["orders.jsonl"] = json.dumps(order).encode()
    tried("shopify" if kind is Shopify else "woocommerce", files)


@FUZZ
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    cut=st.integers(0, 90),
    binary=st.binary(max_size=9),
)
def test_any_feed(text: str, cut: int, binary: bytes) -> None:
    feed = f"<rss><item><id>a</id><title>{text}</title><price>{text}</price></item></rss>".encode()
    view = {"event_timestamp": TIMES[0], "event_name": "view_item", "user_pseudo_id": "a"}
    files = {"events.jsonl": json.dumps(view).encode(), "m.yaml": b"items: {file: feed.xml}"}
    tried("ga4", files | {"feed.xml": feed[:cut] + binary + feed[cut:]}, "m.yaml")


def test_parquet_of_other_types_is_judged_by_its_values() -> None:
    rows = [{"anonymous_id": 7, "timestamp": 1, "product_id": [1], "price": {"amount": 1}}]
    with TemporaryDirectory() as name:
        pq.write_table(pa.Table.from_pylist(rows), Path(name) / "product_viewed.parquet")
        report = imported("segment", Path(name))
    assert report.parts["events"].quarantined == 1


def test_every_adapter_of_a_platform_tells_what_it_lacks() -> None:
    platforms = {kind for kind in Platform.__subclasses__()}
    assert len(platforms) == 4 and all(kind.lacks for kind in platforms)
    assert {"ga4", "shopify", "woocommerce", "segment"} < set(ADAPTERS)
