"""Segment's warehouse tables as files: product_viewed.csv, order_completed/*.parquet and so on.

Segment has no visits: events of one anonymous_id belong to one while they are less than 30 minutes apart.
The item is product_id or, where there is none, sku. The id is Segment's message id; an order's is its
order_id, so that one that was sent twice counts once.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import duckdb

from feature_repo.vocabulary.mediums import channel_of
from feature_repo.vocabulary.naming import event_id
from feature_repo.vocabulary.trackers import SEGMENT
from pipelines.ingest.adapters.cells import Extract
from pipelines.ingest.adapters.mapping import Part, ShopMapping
from pipelines.ingest.adapters.platform import Platform, listed, path_of, said
from pipelines.ingest.files.records import Record

VISIT_GAP_MINUTES = 30  # the rule of web analytics, Segment's own among them
_NESTED = ("product_list_viewed", "order_completed", "order_refunded")
_WHEN = ("timestamp", "original_timestamp", "received_at")
_FIELDS = ("event_id", "event_ts", "created_ts", "type", "user_id", "session_id", "item_id", "list_name")
_MORE = ("position", "price", "quantity", "query", "channel")


class Segment(Platform):
    """Files, or folders of files, called like the tables; a table may be missing."""

    mapping: ClassVar = ShopMapping.model_validate(
        {
            "events": {
                "file": [f"{table}{more}" for table in SEGMENT for more in (".*", "-*", "_0*", "/*")],
                "columns": {name: name for name in (*_FIELDS, *_MORE)},
                "timezone": "UTC",
            }
        }
    )
    needed: ClassVar = {"events": ("anonymous_id",)}
    optional: ClassVar = {
        "events": (
            *("id", "user_id", "context_campaign_medium", "list_id", "category", "query", "order_id"),
            *("products", "product_id", "sku", "name", "brand", "currency", "price", "quantity", "position"),
            *_WHEN,
        )
    }
    lacks: ClassVar = "no visits: made of events less than 30 minutes apart; no devices, no stock"

    def unfold(
        self, part: str, path: Path, records: Iterable[Record]
    ) -> Iterator[tuple[Record, dict[str, Any]]]:
        table = path.name if path.parent == self.source else path.parent.name
        name = next(known for known in SEGMENT if table.startswith(known))
        return ((record, row) for record in records for row in _rows(name, record.values))

    def _extracted(self, part: str, mapped: Part, connection: duckdb.DuckDBPyConnection) -> Extract | None:
        found = super()._extracted(part, mapped, connection)
        return found and replace(found, query=in_visits(found.query))


def _rows(table: str, event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    visitor = said(event.get("anonymous_id")) or said(event.get("user_id"))
    when = next((said(event.get(name)) for name in _WHEN if said(event.get(name))), None)
    order = said(event.get("order_id"))
    products = (listed(event.get("products")) or [{}]) if table in _NESTED else [event]
    for place, product in enumerate(products, 1):
        item = said(product.get("product_id")) or said(product.get("sku"))
        own = said(event.get("id"))
        key = (table, order) if order else (own,) if own else (table, visitor, when, item)
        yield {
            "event_id": event_id(*key, f"{place:03d}"),
            "event_ts": when,
            "created_ts": event.get("received_at"),
            "type": SEGMENT[table],
            "user_id": said(event.get("user_id")) or visitor,
            "session_id": visitor,
            "item_id": None if table == "products_searched" else item,
            "list_name": event.get("list_id") or event.get("category")
            if table == "product_list_viewed"
            else None,
            "position": product.get("position"),
            "price": product.get("price"),
            "quantity": product.get("quantity")
            if SEGMENT[table] not in ("impression", "product_viewed")
            else None,
            "query": event.get("query"),
            "channel": channel_of(event.get("context_campaign_medium")),
            "item.title": product.get("name"),
            "item.category_path": path_of([product.get("category")]),
            "item.brand": product.get("brand"),
            "item.currency": product.get("currency") or event.get("currency"),
        }


def in_visits(query: str) -> str:
    """A visit is called by its visitor and its first second: later files do not rename it."""
    order = "PARTITION BY session_id ORDER BY event_ts, file, source_row"
    far = f"event_ts - lag(event_ts) OVER ({order}) >= INTERVAL {VISIT_GAP_MINUTES} MINUTE"
    begun = f"sum(first_of_visit) OVER ({order} ROWS UNBOUNDED PRECEDING)"
    first = "min(event_ts) OVER (PARTITION BY session_id, visit)"
    named = f"session_id || '.' || CAST(epoch_us({first}) // 1000000 AS BIGINT)"
    return f"""SELECT * EXCLUDE (first_of_visit, visit) REPLACE (coalesce({named}, session_id) AS session_id)
        FROM (SELECT *, {begun} AS visit FROM (
            SELECT *, CASE WHEN {far} THEN 1 ELSE 0 END AS first_of_visit FROM ({query})))"""
