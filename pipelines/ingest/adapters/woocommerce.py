"""WooCommerce: orders of its REST API, one a line, and its own product export.

The item is the product; a variation counts for its product, here and in the catalogue. Orders that nobody
paid for (pending, failed, cancelled ...) are passed over.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from feature_repo.vocabulary.naming import event_id
from feature_repo.vocabulary.trackers import RETURN
from pipelines.ingest.adapters.mapping import ShopMapping
from pipelines.ingest.adapters.platform import Platform, listed, path_of, said, tags_of, type_of
from pipelines.ingest.files.records import Record

TYPES = {
    **dict.fromkeys(("completed", "processing", "on-hold"), "purchase_completed"),
    "refunded": RETURN,
}
"""Status of an order -> type; on-hold waits for a bank transfer."""
_PARENT = "Parent"
_GTIN = "GTIN, UPC, EAN, or ISBN"


class WooCommerce(Platform):
    """orders*.jsonl and wc-product-export*.csv."""

    mapping: ClassVar = ShopMapping.model_validate(
        {
            "events": {
                "file": ["orders*.jsonl", "orders*.jsonl.gz", "orders*.ndjson", "orders*.json"],
                "columns": {
                    "event_id": "event_id",
                    "event_ts": "date_created_gmt",
                    "type": "status",
                    "user_id": "customer",
                    "session_id": "id",
                    "item_id": "item",
                    "price": "price",
                    "quantity": "quantity",
                    "country": "country",
                },
                "types": TYPES,
                "other_types": "skip",
                "timezone": "UTC",
            },
            "items": {
                "file": ["wc-product-export*.csv", "products*.csv"],
                "columns": {
                    "item_id": "ID",
                    "title": "Name",
                    "description": "Description",
                    "category_path": "category",
                    "brand": "Brands",
                    "price": "price",
                    "stock": "stock",
                    "image_path": "image",
                    "gtin": _GTIN,
                    "tags": "Tags",
                },
            },
        }
    )
    needed: ClassVar = {
        "events": ("id", "status", "date_created_gmt", "line_items"),
        "items": ("ID", "Type", "Name"),
    }
    optional: ClassVar = {
        "items": (
            *("SKU", "Published", "In stock?", "Stock", "Backorders allowed?", "Sale price", "Regular price"),
            *("Date sale price starts", "Date sale price ends", "Categories", "Images", "Tags", _PARENT),
        )
    }
    lacks: ClassVar = "orders only: no views, lists, carts or devices; a visit is an order"

    def unfold(
        self, part: str, path: Path, records: Iterable[Record]
    ) -> Iterator[tuple[Record, dict[str, Any]]]:
        if part == "items":
            yield from _products(list(records))
        else:
            yield from ((record, line) for record in records for line in _lines(record.values))


def _lines(order: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    found = order.get("billing")
    billing: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    number, customer = said(order.get("id")), said(order.get("customer_id"))
    for place, line in enumerate(listed(order.get("line_items")) or [{}], 1):
        product = said(line.get("product_id"))
        name = said(line.get("parent_name")) or said(line.get("name"))
        yield {
            "event_id": event_id(number, f"{place:03d}"),
            "date_created_gmt": order.get("date_created_gmt"),
            "status": type_of(said(order.get("status")), TYPES),
            "customer": customer
            if customer not in (None, "0")
            else (said(billing.get("email")) or "").lower(),
            "id": number,
            # 0 is a product that was deleted since.
            "item": product if product not in (None, "0") else said(line.get("sku")) or name,
            "price": line.get("price"),
            "quantity": line.get("quantity"),
            "country": billing.get("country"),
            "item.title": name,
            "item.currency": order.get("currency"),
        }


def _products(records: list[Record]) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Products, without their variations; one without a price of its own has its first variation's."""
    by_sku = {said(r.values["SKU"]): said(r.values["ID"]) for r in records if said(r.values["SKU"])}
    prices: dict[str | None, str] = {}
    products = []
    for record in records:
        line, price = record.values, _price(record.values)
        if "variation" not in (said(line["Type"]) or "").lower():
            products.append(record)
        elif price is not None:
            parent = said(line[_PARENT]) or ""
            prices.setdefault(parent[3:] if parent.startswith("id:") else by_sku.get(parent), price)
    for record in products:
        line = record.values
        categories, images = ((said(line[name]) or "").split(",") for name in ("Categories", "Images"))
        yield (
            record,
            {
                **line,
                "category": path_of(step for step in categories[0].split(">")),
                "price": _price(line) or prices.get(said(line["ID"])),
                "stock": _stock(line),
                "image": said(images[0]),
                "Tags": tags_of(line["Tags"]),
                "Brands": (said(line["Brands"]) or "").partition(",")[0],
            },
        )


def _price(line: Mapping[str, Any]) -> str | None:
    """The price of a sale counts where the sale has no dates."""
    dated = said(line["Date sale price starts"]) or said(line["Date sale price ends"])
    return (None if dated else said(line["Sale price"])) or said(line["Regular price"])


def _stock(line: Mapping[str, Any]) -> str | None:
    """None where nobody counts; 0 for what cannot be bought: sold out, a draft, a private product."""
    if said(line["Published"]) in ("0", "-1") or said(line["In stock?"]) == "0":
        return "0"
    return None if said(line["Backorders allowed?"]) in ("1", "notify") else said(line["Stock"])
