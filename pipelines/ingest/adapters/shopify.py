"""Shopify as its admin exports it: orders*.csv and, if it is there, products*.csv.

An order's first line has its date and customer; later lines have the order's name alone and are filled from
the first. The item is the product's handle, found by SKU or title in the products export, else the SKU or the
line's name. A line of an order that was cancelled or refunded as a whole is a return.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from feature_repo.vocabulary.naming import event_id
from feature_repo.vocabulary.trackers import RETURN
from pipelines.ingest.adapters.mapping import ShopMapping
from pipelines.ingest.adapters.platform import Platform, path_of, said, tags_of
from pipelines.ingest.files.records import Record

_GONE = ("refunded", "voided", "expired")  # of an order; partially_refunded does not say which line
_STOCK = ("Variant Inventory Qty", "Variant Inventory Tracker", "Variant Inventory Policy", "Status")
_FIRST = (
    "Title",
    "Body (HTML)",
    "Vendor",
    "Product Category",
    "Type",
    "Variant Price",
    "Image Src",
    "Status",
    "Tags",
)


class Shopify(Platform):
    """The admin's own exports; long ones come in several files."""

    mapping: ClassVar = ShopMapping.model_validate(
        {
            "events": {
                "file": ["orders*.csv", "orders*.csv.gz"],
                "columns": {
                    "event_id": "event_id",
                    "event_ts": "Created at",
                    "type": "type",
                    "user_id": "customer",
                    "session_id": "Name",
                    "item_id": "item",
                    "price": "Lineitem price",
                    "quantity": "Lineitem quantity",
                    "country": "country",
                },
            },
            "items": {
                "file": ["products*.csv", "products*.csv.gz"],
                "columns": {
                    "item_id": "Handle",
                    "title": "Title",
                    "description": "Body (HTML)",
                    "category_path": "category",
                    "brand": "Vendor",
                    "price": "Variant Price",
                    "stock": "stock",
                    "image_path": "Image Src",
                    "tags": "Tags",
                },
            },
        }
    )
    needed: ClassVar = {
        "events": ("Name", "Created at", "Lineitem name", "Lineitem quantity", "Lineitem price"),
        "items": ("Handle", "Title"),
    }
    optional: ClassVar = {
        "events": (
            *("Email", "Customer ID", "Currency", "Cancelled at", "Financial Status", "Lineitem sku"),
            *("Billing Country", "Shipping Country"),
        ),
        "items": ("Product Category", "Type", "Variant SKU", "Tags", *_STOCK),
    }
    lacks: ClassVar = "orders only: no views, lists, carts or devices; a visit is an order"

    def unfold(
        self, part: str, path: Path, records: Iterable[Record]
    ) -> Iterator[tuple[Record, dict[str, Any]]]:
        return _products(records) if part == "items" else self._lines(records)

    def _lines(self, records: Iterable[Record]) -> Iterator[tuple[Record, dict[str, Any]]]:
        first: Mapping[str, Any] = {}
        place = 0
        for record in records:
            line = record.values
            place = place + 1 if first and line["Name"] == first["Name"] else 1
            first = line if place == 1 else first
            status = (said(first["Financial Status"]) or "").lower()
            sku, name = said(line["Lineitem sku"]), said(line["Lineitem name"])
            yield (
                record,
                {
                    **line,
                    "event_id": event_id(line["Name"], f"{place:03d}"),
                    "Created at": first["Created at"],
                    "type": RETURN
                    if said(first["Cancelled at"]) or status in _GONE
                    else "purchase_completed",
                    "customer": said(first["Customer ID"]) or (said(first["Email"]) or "").lower(),
                    "item": self._handle(sku, name) or sku or name,
                    "country": said(first["Shipping Country"]) or said(first["Billing Country"]),
                    "item.title": name,
                    "item.currency": first["Currency"],
                },
            )

    def _handle(self, sku: str | None, name: str | None) -> str | None:
        """A line is named `Title` or `Title - Variant`."""
        by_sku, by_title = self._handles
        titles = (name, (name or "").rpartition(" - ")[0])
        return by_sku.get(sku) or next((by_title[title] for title in titles if title in by_title), None)

    @cached_property
    def _handles(self) -> tuple[dict[str | None, str], dict[str | None, str]]:
        """SKU -> handle and title -> handle, of the products export."""
        by_sku: dict[str | None, str] = {}
        by_title: dict[str | None, str] = {}
        assert self.mapping.items is not None
        for path in self.paths_of(self.mapping.items):
            for record in self.records_of("items", self.mapping.items, path)[0]:
                handle, sku, title = (said(record.values.get(n)) for n in ("Handle", "Variant SKU", "Title"))
                if handle and sku:
                    by_sku.setdefault(sku, handle)
                if handle and title:
                    by_title.setdefault(title, handle)
        return by_sku, by_title


def _products(records: Iterable[Record]) -> Iterator[tuple[Record, dict[str, Any]]]:
    """One row per handle, of its first line; a column that is blank there is filled from the next line."""
    found: dict[str, tuple[Record, list[Mapping[str, Any]]]] = {}
    for record in records:
        handle = said(record.values["Handle"])
        if handle is None:
            yield record, dict(record.values)
        else:
            found.setdefault(handle, (record, []))[1].append(record.values)
    for record, lines in found.values():
        row = {name: next((v for line in lines if (v := said(line[name]))), None) for name in _FIRST}
        words = [said(step) for step in (row["Product Category"] or "").split(">")]
        category = path_of(words) or row["Type"]
        yield (
            record,
            row
            | {
                "Handle": lines[0]["Handle"],
                "category": category,
                "stock": _stock(row, lines),
                "Tags": tags_of(row["Tags"]),
            },
        )


def _stock(row: Mapping[str, Any], lines: list[Mapping[str, Any]]) -> str | None:
    """Of all variants together; none where Shopify does not count, or sells on without one. What cannot be
    bought, a draft or an archived product, has 0."""
    if (row["Status"] or "active").lower() != "active":
        return "0"
    variants = [line for line in lines if said(line["Variant Inventory Qty"])]
    counted = [line for line in variants if said(line["Variant Inventory Tracker"])]
    endless = any(line["Variant Inventory Policy"] == "continue" for line in counted)
    if endless or not counted or len(counted) < len(variants):
        return None
    quantities = [str(line["Variant Inventory Qty"]).strip() for line in counted]
    wrong = [text for text in quantities if not text.lstrip("-").isdecimal()]
    return wrong[0] if wrong else str(sum(max(0, int(text)) for text in quantities))
