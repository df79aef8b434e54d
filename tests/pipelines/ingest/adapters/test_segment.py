"""Segment's warehouse tables: one file or folder per table, visits made of the gaps."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from shops.platforms import csv_of, imported, kept, refused, skipped
from shops.small_export import LOOSE

SKIPPING = dataclasses.replace(LOOSE, returns="skip")
WHO = ("id", "anonymous_id", "user_id", "timestamp", "received_at")
PRODUCT = ("product_id", "sku", "name", "category", "price", "currency")
MUG, BOWL = ("p1", "MUG", "Mug", "Mugs", "9.50", "EUR"), ("", "BOWL", "Bowl", "Bowls", "7.00", "EUR")


def hit(number: int, clock: str, visitor: str = "a1", user: str = "") -> tuple[str, ...]:
    when = f"2026-01-31 {clock}:00.000 UTC"  # as BigQuery writes it into CSV
    return (f"m{number}", visitor, user, when, when.replace(":00.", ":02."))


def write(folder: Path) -> None:
    viewed = [
        (*hit(1, "12:01"), *MUG),
        (*hit(2, "12:36"), *BOWL),  # more than half an hour later: the next visit
        (*hit(3, "12:02", visitor=""), *MUG),
        (*hit(4, "12:02"), "", "(not set)", "Ghost", "", "1", "EUR"),
        (*hit(5, "12:03"), "p1", "MUG", "Mug", "Mugs", "EUR 9.50", "EUR"),
        (*hit(1, "12:01"), *MUG),  # loaded into the warehouse twice
        (
            *hit(6, "12:40", user="u1")[:3],
            "",
            "2026-01-31T12:40:02Z",
            "p1",
            "MUG",
            "Mug, new",
            "Cups",
            "8.00",
            "EUR",
        ),
    ]
    (folder / "product_viewed.csv").write_text(csv_of((*WHO, *PRODUCT), viewed))
    products = json.dumps([{"product_id": "p1", "position": 1}, {"sku": "BOWL", "position": 2, "price": 7}])
    listed = [(*hit(7, "12:00"), "home", products), (*hit(8, "12:00"), "home", "{broken")]
    (folder / "product_list_viewed.csv").write_text(csv_of((*WHO, "list_id", "products"), listed))
    lines = json.dumps([{"product_id": "p1", "price": 9.5, "quantity": 2}, {"sku": "BOWL", "quantity": 1}])
    bought = [(*hit(9, "12:04"), "o1", lines), (*hit(10, "12:05"), "o1", lines)]
    (folder / "order_completed.csv").write_text(csv_of((*WHO, "order_id", "products"), bought))
    (folder / "order_refunded.csv").write_text(
        csv_of((*WHO, "order_id", "products"), [(*hit(11, "13:00"), "o1", lines)])
    )
    (folder / "pages.csv").write_text("id,anonymous_id\n1,a1\n")  # a table that is not read
    (folder / "product_added").mkdir()
    at = datetime(2026, 1, 31, 12, 3, 30, tzinfo=UTC).replace(tzinfo=None)
    row = {
        "id": "m12",
        "anonymous_id": "a1",
        "timestamp": at,
        "received_at": at,
        "product_id": "p1",
        "quantity": 1,
    }
    pq.write_table(pa.Table.from_pylist([row | {"price": 9.5}]), folder / "product_added" / "part-0.parquet")


def test_events_of_all_tables_are_one_history_in_visits(tmp_path: Path) -> None:
    write(tmp_path)
    report = imported("segment", tmp_path, SKIPPING)
    first, second = "a1.1769860800", "a1.1769862960"  # of 12:00 and of 12:36
    assert kept(tmp_path, "impressions", "event_ts", "session_id", "item_id", "position", "list_name") == [
        ("2026-01-31T12:00:00Z", first, "p1", 1, "home"),
        ("2026-01-31T12:00:00Z", first, "BOWL", 2, "home"),
    ]
    assert kept(tmp_path, "events", "event_ts", "type", "session_id", "user_id", "item_id", "quantity") == [
        ("2026-01-31T12:01:00Z", "product_viewed", first, "a1", "p1", None),
        ("2026-01-31T12:03:30Z", "add_to_cart", first, "a1", "p1", 1),
        ("2026-01-31T12:04:00Z", "purchase_completed", first, "a1", "p1", 2),
        ("2026-01-31T12:04:00Z", "purchase_completed", first, "a1", "BOWL", 1),
        ("2026-01-31T12:36:00Z", "product_viewed", second, "a1", "BOWL", None),
        ("2026-01-31T12:40:02Z", "product_viewed", second, "u1", "p1", None),
    ]
    assert kept(tmp_path, "events", "created_ts")[0] == ("2026-01-31T12:01:02Z",)
    assert skipped(report) == {"not counted as a purchase: a return": 2}
    assert any("30 minutes apart" in told for told in report.parts["events"].told)


def test_what_does_not_fit_goes_to_quarantine(tmp_path: Path) -> None:
    write(tmp_path)
    imported("segment", tmp_path, SKIPPING)
    assert sorted(refused(tmp_path, "events"), key=str) == [
        (3, "event_id", "order_completed:o1:001"),
        (3, "event_id", "order_completed:o1:002"),
        (3, "item_id", None),  # its products are no JSON
        (4, "session_id", None),
        (5, "item_id", None),
        (6, "price", "EUR 9.50"),
        (7, "event_id", "m1:001"),
    ]


def test_the_catalogue_has_the_latest_words(tmp_path: Path) -> None:
    write(tmp_path)
    imported("segment", tmp_path, SKIPPING)
    assert kept(tmp_path, "items", "item_id", "title", "category_path", "price", "currency") == [
        ("BOWL", "Bowl", "Bowls", 7.0, "EUR"),
        ("p1", "Mug, new", "Cups", 8.0, "EUR"),
    ]
