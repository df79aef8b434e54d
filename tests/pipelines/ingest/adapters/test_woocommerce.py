"""WooCommerce: orders of the REST API and the product export."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from shops.platforms import csv_of, imported, json_lines, kept, refused, skipped
from shops.small_export import LOOSE

from feature_repo.errors import DataError

SKIPPING = dataclasses.replace(LOOSE, returns="skip")


def line(product: int, name: str, price: Any = 9.5, **changes: Any) -> dict[str, Any]:
    return {
        "product_id": product,
        "variation_id": 0,
        "name": name,
        "price": price,
        "quantity": 1,
        "sku": "",
    } | changes


def order(number: int, *lines: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "status": "completed",
        "currency": "EUR",
        "date_created": "2026-01-31T13:00:00",  # of the shop's clock
        "date_created_gmt": "2026-01-31T12:00:00",
        "customer_id": 7,
        "billing": {"email": "Ann@x.example", "country": "NO"},
        "line_items": list(lines),
    } | changes


ORDERS: list[Any] = [
    order(1, line(10, "Mug - Blue", parent_name="Mug", variation_id=11, quantity=2), line(20, "Bowl", 7)),
    order(
        2, line(20, "Bowl", 6.5), status="processing", customer_id=0, date_created_gmt="2026-07-01T00:30:00"
    ),
    order(3, line(20, "Bowl"), status="refunded"),
    order(4, line(20, "Bowl"), status="cancelled"),
    order(5, line(0, "Gift card", sku="GIFT")),  # a product that is gone
    order(6, line(20, "Bowl", "6,50 €")),
    order(7),
    order(8, line(20, "Bowl"), date_created_gmt=None),
    order(1, line(10, "Mug - Blue", parent_name="Mug")),
    "[]",
]
COLUMNS = (
    *("ID", "Type", "SKU", "Name", "Published", "In stock?", "Stock", "Backorders allowed?", "Sale price"),
    *("Regular price", "Date sale price starts", "Categories", "Images", "Parent", "Brands"),
)
PRODUCTS = [
    (
        10,
        "variable",
        "MUG",
        "Mug",
        1,
        1,
        "",
        0,
        "",
        "",
        "",
        "Home > Mugs, Gifts",
        "https://x.example/a.jpg, b.jpg",
        "",
        "Roost",
    ),
    (11, "variation", "MUG-B", "Mug - Blue", 1, 1, 3, 0, "", "9.50", "", "", "", "MUG", ""),
    (20, "simple", "", "Bowl", 1, 1, 4, 0, "6.00", "7.00", "", "Home", "", "", ""),
    (21, "simple", "", "Lamp", 1, 1, 4, 0, "6.00", "8.00", "2026-12-01", "", "", "", ""),
    (22, "simple", "", "Sold out", 1, 0, "", 0, "", "1.00", "", "", "", "", ""),
    (23, "simple", "", "Odd", 1, 1, "", 0, "", "ask us", "", "", "", "", ""),
]


def write(folder: Path) -> None:
    (folder / "orders-1.jsonl").write_text("".join(json_lines(ORDERS)))
    (folder / "wc-product-export-31-1-2026.csv").write_text(csv_of(COLUMNS, PRODUCTS))


def test_each_line_of_a_paid_order_is_a_purchase(tmp_path: Path) -> None:
    write(tmp_path)
    report = imported("woocommerce", tmp_path, SKIPPING)
    fields = ("event_ts", "type", "user_id", "session_id", "item_id", "price", "quantity", "country")
    assert kept(tmp_path, "events", *fields) == [
        ("2026-01-31T12:00:00Z", "purchase_completed", "7", "1", "10", 9.5, 2, "NO"),
        ("2026-01-31T12:00:00Z", "purchase_completed", "7", "1", "20", 7.0, 1, "NO"),
        ("2026-01-31T12:00:00Z", "purchase_completed", "7", "5", "GIFT", 9.5, 1, "NO"),
        ("2026-07-01T00:30:00Z", "purchase_completed", "ann@x.example", "2", "20", 6.5, 1, "NO"),
    ]
    assert skipped(report) == {
        "not a type that the mapping names": 1,
        "not counted as a purchase: a return": 1,
    }
    assert refused(tmp_path, "events") == [
        (6, "price", "6,50 €"),
        (7, "item_id", None),
        (8, "event_ts", None),
        (9, "event_id", "1:001"),
        (10, "row", "[]"),
    ]


def test_a_variation_counts_for_its_product(tmp_path: Path) -> None:
    write(tmp_path)
    imported("woocommerce", tmp_path, SKIPPING)
    fields = ("item_id", "title", "category_path", "brand", "price", "stock", "image_path")
    assert kept(tmp_path, "items", *fields) == [
        ("10", "Mug", "Home/Mugs", "Roost", 9.5, None, "https://x.example/a.jpg"),
        ("20", "Bowl", "Home", None, 6.0, 4, None),
        ("21", "Lamp", None, None, 8.0, 4, None),  # the sale is not on for ever
        ("22", "Sold out", None, None, 1.0, 0, None),
        ("GIFT", "Gift card", None, None, 9.5, None, None),
    ]
    assert refused(tmp_path, "items") == [(7, "price", "ask us")]


def test_a_page_of_the_api_as_one_list_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "orders.json").write_text(json.dumps([order(1)]))
    with pytest.raises(DataError, match="begins a list; not one JSON object per line"):
        imported("woocommerce", tmp_path)
