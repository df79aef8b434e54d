"""Google Analytics 360 as exported from BigQuery and flattened: events, impressions, items and sessions.

Read as the data stands. Items are keyed by name (the SKUs of a view and of its purchase differ by size). A
price of 0 and a list position of 0 are how this export writes "unknown"; so are "(not set)" and an empty
text, in whatever column. There is no margin, stock, brand or description, and none is made up. The totals in
items.parquet (clicks, purchases ...) cover the whole period, the future of every training row included: they
are never read.
"""

from pathlib import Path

import duckdb

from pipelines.ingest.adapters.cells import NO_FAULT, Extract, open_parquet, parquet_source
from pipelines.ingest.adapters.conversions import something

TYPES = {
    "click": "click",
    "view": "product_viewed",
    "cart": "add_to_cart",
    "purchase": "purchase_completed",
    "remove_from_cart": "remove_from_cart",
}
CURRENCY = "USD"  # GA360 reports in the property's currency; this property's is the US dollar

_HIT = {"ts": "instant", "user_id": "text", "session_id": "text", "hit": "whole", "item": "text"}
_LIST = {"list_name": "text", "list_pos": "whole", "price": "number"}
_CONTEXT = {"device": "text", "country": "text", "channel": "text"}
COLUMNS = {
    "events": {**_HIT, **_LIST, **_CONTEXT, "event": "text", "qty": "whole"},
    "impressions": {**_HIT, **_LIST, "page": "text"},
    "items": {"name": "text", "category": "text", "price": "number"},
    "sessions": {"session_id": "text", "ts": "instant", **_CONTEXT},
}
"""The columns that are read, per file, with their kinds (pipelines.ingest.adapters.cells)."""


class Ga360:
    """events.parquet, impressions.parquet, items.parquet and sessions.parquet in one folder."""

    def __init__(self, source: Path) -> None:
        self.source = source

    def extract(self, part: str, connection: duckdb.DuckDBPyConnection) -> Extract | None:
        path = self.source / f"{part}.parquet"
        if part == "impressions" and not path.exists():
            return None
        _, rows = open_parquet(path, COLUMNS[part])
        if part == "items":
            return Extract(path, rows, _items(path))
        if part == "events":
            return Extract(path, rows, _events(path))
        sessions = self.source / "sessions.parquet"
        open_parquet(sessions, COLUMNS["sessions"])
        return Extract(path, rows, _impressions(path, sessions))


def _known(column: str) -> str:
    return something(column, ("(not set)", "(none)"))


def _event_id(kind: str) -> str:
    """Session, hit, kind and a running number: stable, and the ids of one page sort as listed.

    A session over midnight is exported as two that restart their hits; the running number covers both.
    """
    running = f"row_number() OVER (PARTITION BY session_id, hit, {kind} ORDER BY file_row_number)"
    return f"format('{{}}:{{:04d}}:{{}}:{{:03d}}', session_id, hit, {kind}, {running})"


def _hit(event_id: str, kind: str, list_name: str, quantity: str, context: str) -> str:
    """Select list of one event; `context` is the alias that knows device, country and channel."""
    return f"""
        0 AS file, file_row_number + 1 AS source_row, NULL AS line, {NO_FAULT},
        {event_id} AS event_id, hits.ts AS event_ts, hits.ts AS created_ts, {kind} AS type,
        {_known("hits.user_id")} AS user_id, {_known("session_id")} AS session_id,
        {_known("item")} AS item_id, NULL AS surface, NULL AS request_id, NULL AS slot,
        {_known(list_name)} AS list_name, nullif(list_pos, 0) AS position, nullif(price, 0) AS price,
        {quantity} AS quantity, NULL AS query, {_known(context + ".device")} AS device,
        {_known(context + ".country")} AS country, {_known(context + ".channel")} AS channel,
        true AS consent"""


def _events(path: Path) -> str:
    cases = " ".join(f"WHEN '{theirs}' THEN '{ours}'" for theirs, ours in TYPES.items())
    kind = f"CASE event {cases} ELSE event END"
    columns = _hit(_event_id("event"), kind, "list_name", "qty", "hits")
    return f"SELECT {columns} FROM {parquet_source(path)} hits"


def _impressions(path: Path, sessions: Path) -> str:
    """Impressions carry no context: the session's is joined. Their list is the page that showed it."""
    columns = _hit(_event_id("'impression'"), "'impression'", "page", "NULL", "sessions")
    context = ", ".join(f"arg_min({name}, ts) AS {name}" for name in _CONTEXT)
    return f"""
        SELECT {columns} FROM {parquet_source(path)} hits LEFT JOIN (
            SELECT session_id, {context} FROM {parquet_source(sessions)} GROUP BY session_id
        ) sessions USING (session_id)"""


def _items(path: Path) -> str:
    return f"""
        SELECT 0 AS file, file_row_number + 1 AS source_row, NULL AS line, {NO_FAULT},
        {_known("name")} AS item_id, {_known("name")} AS title, NULL AS description,
        rtrim({_known("category")}, '/') AS category_path, NULL AS brand,
        nullif(price, 0) AS price, '{CURRENCY}' AS currency, NULL AS margin, NULL AS stock,
        NULL AS image_path, NULL AS accessories, NULL AS available_from, NULL AS gtin,
        NULL AS url, NULL AS tags
        FROM {parquet_source(path)}"""
