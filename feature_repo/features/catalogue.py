"""The catalogue as a feature view: what is known of an item without a single event.

A shop's export says what the catalogue is, not what it was on a day of the past, so every row holds from one
instant before all data on: price, margin and stock of history are today's, up to an item's first live change;
from there on they have a history, one row per change (feature_repo/offline/item_log.py). When a row was said
is another instant, that of the export's newest event: `created_timestamp` offline and the stamp online, where
of two exports the later wins.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.clock import DAY_US, instant
from feature_repo.events import EARLIEST, TIMESTAMP
from feature_repo.features.sources import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.features.stored import FOLDS
from feature_repo.folds.fold import Column, Fold, Part, Reading
from feature_repo.places import EVENTS, IMPRESSIONS, ITEMS, existing

TAGS = "tags"  # read by rules alone: no model and no release depends on them
SAID = b"said"  # of the metadata of a catalogue's file: when it was, us


def _column(name: str) -> Any:
    return lambda matrix, now, rows: getattr(matrix, name)[rows]


def _age_days(matrix: Any, now: int, rows: Any) -> Any:
    first = matrix.available_from[rows]
    first = np.where(first > 0, first, matrix.activity["first_ts"][rows])
    return np.where(first > 0, (now - first) / DAY_US, np.nan)


class Catalogue(Part):
    """A line of the catalogue, as the shop exports it: no event changes it."""

    types = frozenset()
    columns = (
        Column("title", "string", "text", "name as the shop shows it"),
        Column("category_path", "string", "path", "from the root, parts divided by /; null for unknown"),
        Column("brand", "string", "text", "null for unknown"),
        Column("price", "float64", "currency", "in the shop's currency; null for unknown"),
        Column("margin", "float64", "share", "of the price, 0 to 1; null for unknown"),
        Column("stock", "int64", "pieces", "on hand; null for unknown"),
        Column("available_from", "int64", "us", "first day of sale; 0 for unknown"),
        Column("image_path", "string", "text", "address of its picture; null for unknown"),
        Column("url", "string", "text", "address of its page; null for unknown"),
        Column(TAGS, "list<string>", "text", "words of the shop's own, for its rules; null for unknown"),
    )
    readings = (
        Reading("price_log", "log currency", "logarithm of the price", ("price",), _column("price_log")),
        Reading("margin", "share", "of the price", ("margin",), _column("margin")),
        Reading("age_days", "days", "on sale, else since its first event", ("available_from",), _age_days),
    )


# What an answer may carry of a product besides its id; the others are the shop's own business.
SHOWN = ("title", "price", "brand", "category_path", "image_path", "url")

ITEM_CATALOGUE = Fold(
    name="item_catalogue",
    key="item_id",
    max_age_days=0,
    doc="What the shop's catalogue says of an item, known without a single event.",
    parts=(Catalogue(),),
)

DECLARED: tuple[Fold, ...] = (*FOLDS, ITEM_CATALOGUE)


def catalogue_rows(items: Path) -> pa.Table:
    """data/raw/items.parquet as offline rows of `item_catalogue`, in the file's order.

    Raises DataError when the file or one of its columns is missing.
    """
    names = [c.name for c in ITEM_CATALOGUE.columns]
    table = pq.read_table(existing(items, "ingest", ITEM_CATALOGUE.key, *names))
    from_when, said = (pa.array([at] * len(table), TIMESTAMP) for at in (EARLIEST, said_at(items.parent)))
    opening = pc.fill_null(pc.cast(table["available_from"], TIMESTAMP).cast(pa.int64()), 0)
    return pa.table(
        {
            ITEM_CATALOGUE.key: table[ITEM_CATALOGUE.key],
            EVENT_TIMESTAMP: from_when,
            CREATED_TIMESTAMP: said,
            **{name: table[name] for name in names},
            "stock": pc.cast(table["stock"], pa.int64()),
            "available_from": opening,
        }
    )


def said_at(raw: Path) -> datetime:
    """When an export was made, as far as it tells: what its catalogue says under SAID, else its newest event.

    From the files' statistics. EARLIEST where there is no event beside the catalogue: then any export with
    events is the later one.
    """
    items, found = raw / ITEMS.name, [EARLIEST]
    if items.exists() and (told := (pq.read_schema(existing(items, "ingest")).metadata or {}).get(SAID)):
        return instant(int(told))
    for path in (raw / EVENTS.name, raw / IMPRESSIONS.name):
        if path.exists():
            held = pq.read_metadata(existing(path, "ingest", "event_ts"))
            place = held.schema.names.index("event_ts")
            columns = (held.row_group(i).column(place) for i in range(held.num_row_groups))
            found += [c.statistics.max for c in columns if c.statistics and c.statistics.has_min_max]
    return max(found)
