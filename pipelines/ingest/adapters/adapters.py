"""Adapters: each reads one layout of shop exports and shows it in canonical columns.

A new layout is a class with one method, entered in ADAPTERS.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa

from feature_repo import params
from feature_repo.errors import ParamsError
from feature_repo.events import ITEM_SCHEMA, SCHEMA
from pipelines.ingest.adapters.cells import (
    Extract,
    canonical_query,
    cell,
    kind_of,
    open_parquet,
    parquet_source,
)
from pipelines.ingest.adapters.ga4 import Ga4
from pipelines.ingest.adapters.ga360 import Ga360
from pipelines.ingest.adapters.platform import Platform
from pipelines.ingest.adapters.segment import Segment
from pipelines.ingest.adapters.shopify import Shopify
from pipelines.ingest.adapters.table import Table
from pipelines.ingest.adapters.woocommerce import WooCommerce

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
}


def adapter_of(shop: params.Shop) -> Adapter:
    """The shop's adapter over its source folder. Raises ParamsError for a name that is not in ADAPTERS."""
    if shop.adapter not in ADAPTERS:
        raise ParamsError(f"shops.{shop.name}.adapter: '{shop.adapter}'; allowed: {', '.join(ADAPTERS)}")
    return ADAPTERS[shop.adapter](shop, params.root() / shop.source)
