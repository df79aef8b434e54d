"""Google Analytics 4 as exported to BigQuery: tables events_YYYYMMDD, as JSON lines or parquet.

One canonical event per line item. A list position counts from 0 or from 1, as the shop sends it: a file in
which a 0 occurs counts from 0. A purchase that is sent twice has one transaction_id: the second is refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.vocabulary.mediums import channel_of
from feature_repo.vocabulary.naming import event_id
from feature_repo.vocabulary.trackers import GA4
from pipelines.ingest.adapters.mapping import Part, ShopMapping
from pipelines.ingest.adapters.platform import Platform, listed, path_of, said, type_of
from pipelines.ingest.adapters.table import wanted_of
from pipelines.ingest.files.exports import Cells
from pipelines.ingest.files.records import Record

_CATEGORIES = ("item_category", *(f"item_category{n}" for n in range(2, 6)))
_FIELDS = ("event_id", "event_ts", "type", "user_id", "session_id", "item_id", "list_name", "position")
_MORE = ("price", "quantity", "query", "device", "country", "channel", "consent")


class Ga4(Platform):
    """events*.{jsonl,json,parquet}, also .gz, or folders of these called events*."""

    mapping: ClassVar = ShopMapping.model_validate(
        {
            "events": {
                "file": ["events*", "events*/*"],
                "columns": {name: name for name in (*_FIELDS, *_MORE)},
                "types": GA4,
                "other_types": "skip",
                "epoch": "us",
                "defaults": {"consent": "true"},
            }
        }
    )
    needed: ClassVar = {"events": ("event_timestamp", "event_name")}
    lacks: ClassVar = "GA4 has no stock, margin, picture or description of an item"

    def unfold(
        self, part: str, path: Path, records: Iterable[Record]
    ) -> Iterator[tuple[Record, dict[str, Any]]]:
        return ((record, row) for record in records for row in _rows(record.values))

    def _cells(self, part: str, mapped: Part, path: Path) -> Cells:
        cells = super()._cells(part, mapped, path)
        place = str(wanted_of(mapped).index("position"))
        positions = cells.table[place]
        if not pc.any(pc.equal(positions, "0")).as_py():
            return cells
        counts = pc.if_else(pc.match_substring_regex(positions, r"^\d{1,9}$"), positions, None).cast(
            pa.int64()
        )
        from_1 = pc.coalesce(pc.add(counts, 1).cast(pa.string()), positions)
        at = cells.table.column_names.index(place)
        return Cells(cells.table.set_column(at, place, from_1), "list positions from 0")


def _rows(event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    name, params = said(event.get("event_name")), _params(event)
    visitor, when = said(event.get("user_pseudo_id")), event.get("event_timestamp")
    visit = said(params.get("ga_session_id"))
    known = GA4.get(name or "")
    order = said(_in(event, "ecommerce", "transaction_id")) or said(params.get("transaction_id"))
    base = {
        "event_ts": when,
        "type": type_of(name, GA4) if visitor else type_of("without a visitor (consent denied)", {}),
        "user_id": said(event.get("user_id")) or visitor,
        "session_id": f"{visitor}.{visit}" if visitor and visit else None,
        "query": params.get("search_term") if known == "search" else None,
        "device": _in(event, "device", "category"),
        "country": _in(event, "geo", "country"),
        "channel": channel_of(_in(event, "traffic_source", "medium")),
        "consent": {"No": "false"}.get(str(_in(event, "privacy_info", "analytics_storage"))),
    }
    several = bool(known) and known != "search"
    hit = (visitor, when, name, event.get("batch_ordering_id"), event.get("batch_event_index"))
    for place, item in enumerate((several and listed(event.get("items"))) or [{}], 1):
        named = said(item.get("item_id")) or said(item.get("item_name"))
        key = ("purchase", order) if order and known == "purchase_completed" else (*hit, named)
        yield base | {
            "event_id": event_id(*key, f"{place:03d}"),
            "item_id": None if known == "search" else named,
            "list_name": said(item.get("item_list_name")) or said(params.get("item_list_name")),
            "position": said(item.get("item_list_index", item.get("index"))),
            "price": item.get("price"),
            "quantity": item.get("quantity")
            if known in ("add_to_cart", "remove_from_cart", "purchase_completed")
            else None,
            "item.title": item.get("item_name"),
            "item.category_path": path_of(item.get(name) for name in _CATEGORIES),
            "item.brand": item.get("item_brand"),
            "item.currency": params.get("currency"),
        }


def _params(event: Mapping[str, Any]) -> dict[str, Any]:
    """Key -> the one value that is there."""
    found = {}
    for param in listed(event.get("event_params")):
        value = param.get("value")
        there = [v for v in value.values() if v is not None] if isinstance(value, Mapping) else []
        found[str(param.get("key"))] = there[0] if there else None
    return found


def _in(event: Mapping[str, Any], outer: str, inner: str) -> Any:
    record = event.get(outer)
    return record.get(inner) if isinstance(record, Mapping) else None
