"""Google Analytics 4 by BigQuery: an event per line item, visits by the session parameter."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shops.platforms import imported, json_lines, kept, refused, skipped
from shops.small_export import LOOSE

from feature_repo.errors import DataError

AT = 1_769_860_800_000_000  # 2026-01-31T12:00:00Z
SKIPPING = dataclasses.replace(LOOSE, returns="skip")


def item(name: str, **changes: Any) -> dict[str, Any]:
    plain = {"item_id": name, "item_name": name.upper(), "item_brand": "Roost", "price": 9.5}
    return (
        plain | {"item_category": "Home", "item_category2": "Mugs", "item_category3": "(not set)"} | changes
    )


def hit(name: str, second: int = 0, *items: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One row of the export, as JSON has it: 64-bit integers are texts."""
    params = {"ga_session_id": {"int_value": "7"}, "currency": {"string_value": "EUR"}}
    params |= {key: {"string_value": text} for key, text in changes.pop("params", {}).items()}
    return {
        "event_date": "20260131",
        "event_timestamp": str(AT + second * 1_000_000),
        "event_name": name,
        "event_params": [{"key": key, "value": value} for key, value in params.items()],
        "user_pseudo_id": "c1",
        "user_id": None,
        "device": {"category": "mobile"},
        "geo": {"country": "Norway"},
        "traffic_source": {"medium": "cpc", "source": "google"},
        "items": list(items),
    } | changes


HITS: list[Any] = [
    hit("session_start"),
    hit(
        "view_item_list",
        1,
        item("a", item_list_index="0", item_list_name="Mugs"),
        item("b", item_list_index="1"),
    ),
    hit("select_item", 2, item("b", item_list_index="1", item_list_name="Mugs")),
    hit("view_item", 3, item("b", price=8.25)),
    hit("click", 4),  # of a link that leaves the shop: none of ours
    hit("scroll", 4),
    hit("add_to_cart", 5, item("b", quantity="2")),
    hit(
        "purchase",
        6,
        item("b", quantity="2"),
        item("(not set)", item_name="Gift card"),
        ecommerce={"transaction_id": "T1"},
    ),
    hit(
        "purchase",
        9,
        item("b", quantity="2"),
        item("(not set)", item_name="Gift card"),
        ecommerce={"transaction_id": "T1"},
    ),
    hit("refund", 10, item("b", quantity="2"), ecommerce={"transaction_id": "T1"}),
    hit("view_search_results", 11, params={"search_term": "blue mug"}, user_id="u9"),
    hit("view_item", 12, item("a", price="12,50 EUR")),
    hit("view_item", 13, item("", item_name="(not set)")),
    hit("view_item", 14, item("a"), event_params=[]),
    hit("view_item", 15, item("a"), user_pseudo_id=None),
    "{'no': 'JSON'}",
    hit("view_item", 16, item("a", item_name="A, new", item_category2="Cups", price=7)),
]


def write(folder: Path) -> None:
    (folder / "events_20260131.jsonl").write_text(json_lines(HITS))


def test_each_line_item_is_an_event_of_its_visit(tmp_path: Path) -> None:
    write(tmp_path)
    report = imported("ga4", tmp_path, SKIPPING)
    assert kept(tmp_path, "events", "event_ts", "type", "session_id", "item_id", "price", "quantity") == [
        ("2026-01-31T12:00:02Z", "click", "c1.7", "b", 9.5, None),
        ("2026-01-31T12:00:03Z", "product_viewed", "c1.7", "b", 8.25, None),
        ("2026-01-31T12:00:05Z", "add_to_cart", "c1.7", "b", 9.5, 2),
        ("2026-01-31T12:00:06Z", "purchase_completed", "c1.7", "b", 9.5, 2),
        ("2026-01-31T12:00:06Z", "purchase_completed", "c1.7", "Gift card", 9.5, None),
        ("2026-01-31T12:00:11Z", "search", "c1.7", None, None, None),
        ("2026-01-31T12:00:16Z", "product_viewed", "c1.7", "a", 7.0, None),
    ]
    assert kept(tmp_path, "impressions", "item_id", "position", "list_name") == [
        ("a", 1, "Mugs"),
        ("b", 2, None),
    ]
    assert kept(tmp_path, "events", "query", "user_id")[5] == ("blue mug", "u9")
    context = set(kept(tmp_path, "events", "device", "country", "channel", "consent"))
    assert context == {("mobile", "Norway", "paid search", True)}
    assert skipped(report) == {
        "not a type that the mapping names": 4,
        "not counted as a purchase: a return": 1,
    }


def test_what_does_not_fit_goes_to_quarantine_with_its_line(tmp_path: Path) -> None:
    write(tmp_path)
    imported("ga4", tmp_path, SKIPPING)
    assert refused(tmp_path, "events") == [
        (9, "event_id", "purchase:T1:001"),  # the page of thanks was loaded again
        (9, "event_id", "purchase:T1:002"),
        (12, "price", "12,50 EUR"),
        (13, "item_id", None),
        (14, "session_id", None),
        (16, "row", "{'no': 'JSON'}"),
    ]


def test_the_catalogue_has_the_latest_words_of_the_events(tmp_path: Path) -> None:
    write(tmp_path)
    report = imported("ga4", tmp_path, SKIPPING)
    assert kept(tmp_path, "items", "item_id", "title", "category_path", "brand", "price", "currency") == [
        ("Gift card", "Gift card", "Home/Mugs", "Roost", 9.5, "EUR"),
        ("a", "A, new", "Home/Cups", "Roost", 7.0, "EUR"),
        ("b", "B", "Home/Mugs", "Roost", 9.5, "EUR"),
    ]
    assert any("GA4 has no stock" in told for told in report.parts["events"].told)


def test_parquet_and_packed_json_lines_give_the_same(tmp_path: Path) -> None:
    good = [h for h in HITS if isinstance(h, dict) and h["event_name"] in ("view_item_list", "add_to_cart")]
    found = []
    for form in ("parquet", "jsonl.gz"):
        folder = tmp_path / form
        folder.mkdir()
        if form == "parquet":
            counted = [h | {"event_timestamp": int(h["event_timestamp"])} for h in good]
            pq.write_table(pa.Table.from_pylist(counted), folder / "events_20260131.parquet")
        else:
            (folder / "events_20260131.jsonl.gz").write_bytes(gzip.compress(json_lines(good).encode()))
        imported("ga4", folder)
        found.append(
            [kept(folder, part, "event_id", "event_ts", "item_id") for part in ("events", "impressions")]
        )
    assert found[0] == found[1] and [len(part) for part in found[0]] == [1, 2]


def test_the_day_and_the_stream_of_the_day_count_once(tmp_path: Path) -> None:
    for table in ("events_20260131", "events_intraday_20260131"):
        (tmp_path / f"{table}.jsonl").write_text(json_lines([hit("view_item", 1, item("a"))]))
    report = imported("ga4", tmp_path)
    assert (report.parts["events"].accepted, report.parts["events"].quarantined) == (1, 1)


def test_another_export_is_refused_by_its_columns(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"fullVisitorId": "1", "hits": []}\n')
    with pytest.raises(DataError, match="'event_timestamp' is missing; there are 'fullVisitorId, hits'"):
        imported("ga4", tmp_path)
