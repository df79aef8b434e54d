"""The catalogue as a feature view: what is known of an item without a single event.

A shop's export says what the catalogue is, not what it was on a day of the past, so every row stands at one
instant before all data: price, margin and stock of history are today's. A shop that exports its price history
gets point-in-time prices by writing one row per change here; nothing else changes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import DataError
from feature_repo.events import TIMESTAMP
from feature_repo.folds import Column
from feature_repo.sources import CREATED_TIMESTAMP, EVENT_TIMESTAMP

KNOWN_FROM = datetime(2000, 1, 1, tzinfo=UTC)  # the earliest instant that the door lets an event have


class ItemCatalogue:
    """Shaped like a fold, so that the views are made in one loop; it has no events and never grows old."""

    name: ClassVar[str] = "item_catalogue"
    key: ClassVar[str] = "item_id"
    max_age_days: ClassVar[int] = 0  # 0: no limit
    columns: ClassVar[tuple[Column, ...]] = (
        Column("title", "string", "name as the shop shows it"),
        Column("category_path", "string", "from the root, parts divided by /; null for unknown"),
        Column("brand", "string", "null for unknown"),
        Column("price", "float64", "in the shop's currency; null for unknown"),
        Column("margin", "float64", "share of the price, 0 to 1; null for unknown"),
        Column("stock", "int64", "pieces on hand; null for unknown"),
        Column("available_from", "int64", "first day of sale, us; 0 for unknown"),
    )


ITEM_CATALOGUE = ItemCatalogue()


def catalogue_rows(items: Path) -> pa.Table:
    """data/raw/items.parquet as offline rows of `item_catalogue`, in the file's order.

    Raises DataError when the file or one of its columns is missing.
    """
    if not items.exists():
        raise DataError(items, "the file is missing", next_step="run `endcap ingest`")
    names = [c.name for c in ITEM_CATALOGUE.columns]
    table = pq.read_table(items)
    if missing := sorted({ITEM_CATALOGUE.key, *names} - set(table.column_names)):
        raise DataError(
            items, f"column '{missing[0]}' is missing", rows=len(table), next_step="run `endcap ingest` again"
        )
    instant = pa.array([KNOWN_FROM] * len(table), TIMESTAMP)
    opening = pc.fill_null(pc.cast(table["available_from"], TIMESTAMP).cast(pa.int64()), 0)
    return pa.table(
        {
            ITEM_CATALOGUE.key: table[ITEM_CATALOGUE.key],
            EVENT_TIMESTAMP: instant,
            CREATED_TIMESTAMP: instant,
            **{name: table[name] for name in names},
            "stock": pc.cast(table["stock"], pa.int64()),
            "available_from": opening,
        }
    )
