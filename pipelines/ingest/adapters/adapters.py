"""Adapters: each reads one layout of shop exports and shows it in canonical columns.

A new layout is a class with one method, entered in ADAPTERS.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa

from feature_repo import params
from feature_repo.errors import DataError, ParamsError
from feature_repo.events import ITEM_SCHEMA, SCHEMA
from pipelines.ingest.adapters.cells import (
    Extract,
    canonical_query,
    cell,
    is_text,
    kind_of,
    open_parquet,
    parquet_source,
    require_columns,
)
from pipelines.ingest.adapters.ga4 import Ga4
from pipelines.ingest.adapters.ga360 import Ga360
from pipelines.ingest.adapters.platform import Platform
from pipelines.ingest.adapters.segment import Segment
from pipelines.ingest.adapters.shopify import Shopify
from pipelines.ingest.adapters.table import Table
from pipelines.ingest.adapters.woocommerce import WooCommerce

SECOND_0 = "2020-01-01 00:00:00+00"  # of made-up times: the first contact is a second later
PARTS: dict[str, pa.Schema] = {"events": SCHEMA, "impressions": SCHEMA, "items": ITEM_SCHEMA}
"""Parts of an export and the schema they arrive in; impressions may be left out."""


class Adapter(Protocol):
    """One layout of exports."""

    def extract(self, part: str, connection: duckdb.DuckDBPyConnection) -> Extract | None:
        """The part (key of PARTS), or None where the export has none.

        Tables that the query needs may be registered in `connection`. Raises DataError for a file that is
        missing, truncated, empty, or has a column missing or of the wrong type.
        """


class Canonical:
    """Files that are canonical already: events.parquet, impressions.parquet, items.parquet in one folder."""

    def __init__(self, source: Path) -> None:
        self.source = source

    def extract(self, part: str, connection: duckdb.DuckDBPyConnection) -> Extract | None:
        path = self.source / f"{part}.parquet"
        if part == "impressions" and not path.exists():
            return None
        schema = PARTS[part]
        kinds = {field.name: kind_of(field) for field in schema}
        _, rows = open_parquet(path, kinds)
        cells = {name: (name, cell(name, kind)) for name, kind in kinds.items()}
        query = canonical_query(schema, cells, parquet_source(path), row="file_row_number + 1")
        return Extract(path, rows, query)


class Sessions:
    """Visits as lists of item ids, oldest first: column `items` of sessions.parquet, rows in order of time.

    There are no times, so they are made up: one view a second, one visit after the other, from SECOND_0 on.
    No contact shares its instant, and a visit is over before the next begins, so nothing is known before the
    lists tell it; but hours, days and ages mean nothing. Columns `session_id` and `user_id` may be there.
    """

    def __init__(self, source: Path) -> None:
        self.source = source

    def extract(self, part: str, connection: duckdb.DuckDBPyConnection) -> Extract | None:
        if part != "events":
            return None
        path = self.source / "sessions.parquet"
        schema, _ = open_parquet(path, {})
        require_columns(path, schema.names, {"items": "texts"}, rows=1)
        found = schema.field("items").type
        if not (
            pa.types.is_list(found) and (is_text(found.value_type) or pa.types.is_integer(found.value_type))
        ):
            problem = f"column 'items' has type {found}; allowed: a list of texts or whole numbers"
            raise DataError(path, problem, next_step="write each visit as a list of its item ids")
        query = f"SELECT coalesce(sum(len(items)), 0)::BIGINT FROM {parquet_source(path)}"
        ((rows,),) = connection.execute(query).fetchall()
        if not rows:
            raise DataError(path, "every list is empty", rows=0, next_step="export it again")
        told = ("times are made up, one view a second in the order of the lists: ages mean nothing",)
        return Extract(path, rows, _one_a_second(path, schema.names), told=told)


def _one_a_second(path: Path, columns: list[str]) -> str:
    named = {name: f"CAST({name} AS VARCHAR)" for name in ("session_id", "user_id") if name in columns}
    visit = named.get("session_id", "format('v{:09d}', file_row_number)")
    cells = {
        "event_id": ("event", "event"),
        "event_ts": ("number", f"TIMESTAMPTZ '{SECOND_0}' + to_seconds(number)"),
        "session_id": ("visit", "visit"),
        "user_id": ("person", "person"),
        "item_id": ("item", "item"),
    }
    source = f"""(
        SELECT format('{{:012d}}', number) AS event, * FROM (
            SELECT *, row_number() OVER (ORDER BY line, place) AS number FROM (
                SELECT {visit} AS visit, {named.get("user_id", "NULL::VARCHAR")} AS person,
                    file_row_number + 1 AS line, unnest(items::VARCHAR[]) AS item,
                    unnest(range(len(items))) AS place
                FROM {parquet_source(path)})))"""
    place, constants = "0 AS file, line", {"type": "'product_viewed'"}
    return canonical_query(SCHEMA, cells, source, row="number", place=place, constants=constants)


def _table(shop: params.Shop, source: Path) -> Adapter:
    if shop.mapping is None:
        raise ParamsError(f"shops.{shop.name}.mapping: null; adapter table needs the path of a mapping file")
    return Table(source, params.root() / shop.mapping)


def _platform(kind: type[Platform]) -> Callable[[params.Shop, Path], Adapter]:
    """A platform's adapter; the shop's mapping, if it has one, names another catalogue."""
    return lambda shop, source: kind(source, params.root() / shop.mapping if shop.mapping else None)


ADAPTERS: dict[str, Callable[[params.Shop, Path], Adapter]] = {
    "simulated": lambda _, source: Canonical(source),
    "ga360": lambda _, source: Ga360(source),
    "table": _table,
    "ga4": _platform(Ga4),
    "shopify": _platform(Shopify),
    "woocommerce": _platform(WooCommerce),
    "segment": _platform(Segment),
    "sessions": lambda _, source: Sessions(source),
}


def adapter_of(shop: params.Shop) -> Adapter:
    """The shop's adapter over its source folder. Raises ParamsError for a name that is not in ADAPTERS."""
    if shop.adapter not in ADAPTERS:
        raise ParamsError(f"shops.{shop.name}.adapter: '{shop.adapter}'; allowed: {', '.join(ADAPTERS)}")
    return ADAPTERS[shop.adapter](shop, params.root() / shop.source)
