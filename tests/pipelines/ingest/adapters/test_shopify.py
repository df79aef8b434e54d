"""Shopify by the admin's CSV exports: lines of orders, products of handles."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from shops.platforms import csv_of, imported, kept, refused, skipped
from shops.small_export import LOOSE

from feature_repo.errors import DataError

SKIPPING = dataclasses.replace(LOOSE, returns="skip")
ORDERS = (
    *("Name", "Email", "Financial Status", "Currency", "Created at", "Lineitem quantity", "Lineitem name"),
    *("Lineitem price", "Lineitem sku", "Cancelled at", "Shipping Country"),
)
AT = "2026-01-31 13:00:00 +0100"
LINES = [
    ("#1001", "Ann@x.example", "paid", "EUR", AT, "2", "Mug - Blue", "9.50", "MUG-B", "", "NO"),
    ("#1001", "Ann@x.example", "", "", "", "1", "Gift card", "25.00", "", "", ""),
    ("#1001", "Ann@x.example", "", "", "", "1", "Bowl", "7,00 EUR", "", "", ""),
    ("#1002", "", "refunded", "EUR", AT, "1", "Mug - Red", "9.50", "MUG-R", "", "DE"),
    ("#1002", "", "", "", "", "1", "Bowl", "7.00", "BOWL", "", ""),
    (
        "#1003",
        "bob@x.example",
        "paid",
        "EUR",
        AT,
        "1",
        "Bowl",
        "7.00",
        "BOWL",
        "2026-02-01 09:00:00 +0100",
        "DE",
    ),
    (
        "#1004",
        "ann@x.example",
        "partially_refunded",
        "EUR",
        "2026-07-01 00:30:00 +0200",
        "1",
        "Bowl",
        "7.00",
        "",
        "",
        "DE",
    ),
    ("#1005", "bob@x.example", "paid", "EUR", "yesterday", "1", "Bowl", "7.00", "BOWL", "", "DE"),
    ("", "bob@x.example", "paid", "EUR", AT, "1", "Bowl", "7.00", "BOWL", "", "DE"),
    ("#1006", "bob@x.example", "paid", "EUR", AT, "1", "", "7.00", "(not set)", "", "DE"),
    ("#1001", "ann@x.example", "paid", "EUR", AT, "2", "Mug - Blue", "9.50", "MUG-B", "", "NO"),
]
PRODUCTS = (
    *("Handle", "Title", "Body (HTML)", "Vendor", "Product Category", "Type", "Variant SKU", "Variant Price"),
    *(
        "Variant Inventory Tracker",
        "Variant Inventory Qty",
        "Variant Inventory Policy",
        "Image Src",
        "Status",
    ),
)
VARIANTS = [
    (
        "mug",
        "Mug",
        "<p>Tea</p>",
        "Roost",
        "Home > Kitchen > Mugs",
        "",
        "MUG-B",
        "9.50",
        "shopify",
        "3",
        "deny",
        "b.jpg",
        "active",
    ),
    ("mug", "", "", "", "", "", "MUG-R", "9.90", "shopify", "-1", "deny", "r.jpg", ""),
    ("mug", "", "", "", "", "", "", "", "", "", "", "c.jpg", ""),
    ("bowl", "Bowl", "", "Roost", "", "Bowls", "BOWL", "7.00", "", "0", "deny", "", "active"),
    ("lamp", "Lamp", "", "", "", "", "LAMP", "cheap", "shopify", "1", "continue", "", "active"),
    ("old", "Old", "", "", "", "", "OLD", "1.00", "shopify", "5", "deny", "", "archived"),
    ("", "Nameless", "", "", "", "", "", "1.00", "", "", "", "", "active"),
]


def write(folder: Path, products: bool = True) -> None:
    (folder / "orders_export_1.csv").write_text(csv_of(ORDERS, LINES))
    if products:
        (folder / "products_export_1.csv").write_text(csv_of(PRODUCTS, VARIANTS))


def test_each_line_of_an_order_is_a_purchase_at_the_orders_time(tmp_path: Path) -> None:
    write(tmp_path)
    report = imported("shopify", tmp_path, SKIPPING)
    fields = ("event_ts", "type", "user_id", "session_id", "item_id", "price", "quantity", "country")
    assert kept(tmp_path, "events", *fields) == [
        ("2026-01-31T12:00:00Z", "purchase_completed", "ann@x.example", "#1001", "mug", 9.5, 2, "NO"),
        ("2026-01-31T12:00:00Z", "purchase_completed", "ann@x.example", "#1001", "Gift card", 25.0, 1, "NO"),
        ("2026-06-30T22:30:00Z", "purchase_completed", "ann@x.example", "#1004", "bowl", 7.0, 1, "DE"),
    ]
    assert skipped(report) == {"not counted as a purchase: a return": 3}
    assert any("orders only" in told for told in report.parts["events"].told)


def test_what_does_not_fit_goes_to_quarantine_with_its_line(tmp_path: Path) -> None:
    write(tmp_path)
    imported("shopify", tmp_path, SKIPPING)
    assert refused(tmp_path, "events") == [
        (4, "price", "7,00 EUR"),
        (9, "event_ts", "yesterday"),
        (10, "session_id", None),
        (11, "item_id", None),
        (12, "event_id", "#1001:001"),  # the order stands in the export twice
    ]


def test_variants_and_pictures_are_one_product(tmp_path: Path) -> None:
    write(tmp_path)
    imported("shopify", tmp_path, SKIPPING)
    fields = ("item_id", "title", "category_path", "brand", "price", "stock", "image_path")
    assert kept(tmp_path, "items", *fields) == [
        ("Gift card", "Gift card", None, None, 25.0, None, None),  # sold, and in no products export
        ("bowl", "Bowl", "Bowls", "Roost", 7.0, None, None),  # nobody counts it: 0 is not sold out
        ("mug", "Mug", "Home/Kitchen/Mugs", "Roost", 9.5, 3, "b.jpg"),
        ("old", "Old", None, None, 1.0, 0, None),
    ]
    assert refused(tmp_path, "items") == [(6, "price", "cheap"), (8, "item_id", None)]


def test_without_a_products_export_the_items_are_those_sold(tmp_path: Path) -> None:
    write(tmp_path, products=False)
    imported("shopify", tmp_path, SKIPPING)
    assert kept(tmp_path, "items", "item_id", "title", "price", "currency") == [
        ("Bowl", "Bowl", 7.0, "EUR"),
        ("Gift card", "Gift card", 25.0, "EUR"),
        ("MUG-B", "Mug - Blue", 9.5, "EUR"),
    ]


def test_an_export_of_something_else_is_refused_by_its_columns(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("Order,Total\n1,2\n")
    with pytest.raises(DataError, match="column 'Name' is missing"):
        imported("shopify", tmp_path)


def test_a_folder_without_orders_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "customers.csv").write_text("Email\na@x.example\n")
    with pytest.raises(DataError, match=r"orders\*\.csv: no such file; .* has 'customers\.csv"):
        imported("shopify", tmp_path)
