"""Any shop's CSV or parquet, by a mapping file that says which of its columns is which canonical field.

    events:
      file: clicks.csv              # .csv or .parquet, relative to the shop's source folder
      columns:                      # canonical field: the shop's column; what is not named stays null
        {event_ts: when, type: action, session_id: visit, item_id: sku, price: price}
      types: {detail: product_viewed, buy: purchase_completed}      # the shop's word: canonical type
      timezone: Europe/Berlin       # of instants that do not say their own
      epoch: us                     # or s, ms: instants are whole numbers since 1970 (GA4 exports)
      delimiter: ";"
      defaults: {device: desktop}   # a constant for a field without a column
    impressions: ...                # optional; `type` is impression where it is not mapped
    items: {file: products.parquet, columns: {item_id: sku, title: name}, defaults: {currency: EUR}}

Events without an event_id column are numbered `<file>:<row>`: append to such a file, never reorder it.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import yaml

from feature_repo.errors import DataError
from feature_repo.events import ITEM_SCHEMA, SCHEMA, TIMESTAMP
from feature_repo.offline.duck import connect
from pipelines.ingest.cells import (
    Extract,
    canonical_query,
    cell,
    is_text,
    kind_of,
    literal,
    open_parquet,
    quoted,
    require_columns,
    require_file,
)

_REQUIRED = {
    "events": ("event_ts", "type", "session_id", "item_id"),
    "impressions": ("event_ts", "session_id", "item_id"),
    "items": ("item_id", "title"),
}
_EPOCHS = {"s": 1, "ms": 1_000, "us": 1_000_000}  # name: counts per second
_YEAR_2200 = 7_258_118_400  # seconds since 1970


@dataclass(frozen=True)
class Mapped:
    """One part of the mapping file; see the module's text for the keys."""

    file: str
    columns: dict[str, str]
    types: dict[str, str] = field(default_factory=dict)
    timezone: str | None = None
    epoch: str | None = None
    delimiter: str = ","
    defaults: dict[str, Any] = field(default_factory=dict)


class Table:
    """A folder of CSV or parquet files and the mapping that explains them."""

    def __init__(self, source: Path, mapping: Path) -> None:
        self.source, self.mapping = source, read_mapping(mapping)

    def extract(self, part: str, connection: duckdb.DuckDBPyConnection) -> Extract | None:
        if part not in self.mapping:
            return None
        mapped = self.mapping[part]
        schema = ITEM_SCHEMA if part == "items" else SCHEMA
        kinds = {name: kind_of(schema.field(name)) for name in mapped.columns}
        path = self.source / mapped.file
        table = _read(path, mapped, kinds)
        cells = {}
        for name, column in mapped.columns.items():
            found = table.schema.field(column).type
            value = cell(column, kinds[name], found)
            if kinds[name] == "instant" and not (pa.types.is_timestamp(found) and found.tz):
                table, value = _instant(table, column, mapped, path)
            cells[name] = (column, value)
        view = f"table adapter {part}"
        connection.register(view, table)
        constants = _constants(part, mapped)
        query = canonical_query(schema, cells, quoted(view), "source_row", constants, "unread_line")
        return Extract(path, table.num_rows, _in_our_words(query, mapped.types))


def read_mapping(path: Path) -> dict[str, Mapped]:
    """The mapping file, by part. Raises DataError naming the key that is unknown, missing or wrong."""
    require_file(path)
    try:
        parts = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise DataError(path, f"not YAML: {error}", next_step="correct the mapping file") from error
    if not isinstance(parts, dict) or not {"events", "items"} <= set(parts) <= set(_REQUIRED):
        raise _wrong(path, f"the parts are {parts and list(parts)}", "events, impressions (optional), items")
    return {part: _mapped(path, part, values) for part, values in parts.items()}


def _mapped(path: Path, part: str, values: Any) -> Mapped:
    allowed = [key.name for key in fields(Mapped)]
    if not isinstance(values, dict) or not {"file", "columns"} <= set(values) <= set(allowed):
        keys = ", ".join(allowed)
        raise _wrong(path, f"{part}: {values!r}", f"a section with file, columns and of the rest of {keys}")
    mapped = Mapped(**values)
    names = (ITEM_SCHEMA if part == "items" else SCHEMA).names
    for name in [*mapped.columns, *mapped.defaults]:
        if name not in names:
            raise _wrong(path, f"{part}: '{name}' is no canonical field", ", ".join(names))
    for name in _REQUIRED[part]:
        if name not in mapped.columns:
            raise _wrong(path, f"{part}.columns: '{name}' is not mapped", ", ".join(_REQUIRED[part]))
    if mapped.epoch not in (None, *_EPOCHS):
        raise _wrong(path, f"{part}.epoch: {mapped.epoch!r}", ", ".join(_EPOCHS))
    try:
        ZoneInfo(mapped.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise _wrong(path, f"{part}.timezone: {mapped.timezone!r}", "a name such as Europe/Berlin") from error
    return mapped


def _wrong(path: Path, problem: str, allowed: str) -> DataError:
    return DataError(path, f"{problem}; allowed: {allowed}", next_step="correct the mapping file")


def _read(path: Path, mapped: Mapped, kinds: Mapping[str, str]) -> pa.Table:
    """The mapped columns, `source_row` (from 1) and `unread_line` (the text of a line without cells)."""
    wanted = {mapped.columns[name]: kind for name, kind in kinds.items()}
    if path.suffix == ".csv":
        return _read_csv(path, wanted, mapped.delimiter)
    # Text stands for any kind: shops write numbers and instants as text, and each cell is judged.
    _, rows = open_parquet(path, wanted, lenient=True)
    try:
        table = pq.read_table(path, columns=list(wanted))
    except (pa.ArrowException, OSError) as error:
        problem = f"cannot be read to its end: {error}"
        raise DataError(path, problem, rows=rows, next_step="export it again") from error
    return _numbered(table, pa.array(range(1, rows + 1), pa.int64()), None)


def _read_csv(path: Path, wanted: Mapping[str, str], delimiter: str) -> pa.Table:
    """All cells as text. A line with too few or too many cells is kept whole in `unread_line`."""
    require_file(path)
    broken: list[pacsv.InvalidRow] = []

    def keep_for_quarantine(row: pacsv.InvalidRow) -> str:
        broken.append(row)
        return "skip"

    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            header = next(csv.reader(lines, delimiter=delimiter), [])
        table = pacsv.read_csv(
            path,
            pacsv.ReadOptions(use_threads=False),  # only then does an invalid row know its number
            pacsv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=keep_for_quarantine
            ),
            pacsv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), null_values=[""], strings_can_be_null=True
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, f"not a readable CSV file: {error}", next_step="export it as UTF-8") from error
    require_columns(path, table.column_names, wanted, table.num_rows + len(broken))
    lost = {row.number - 1: row.text for row in broken}  # pyarrow counts the header as row 1
    kept = [n for n in range(1, table.num_rows + len(lost) + 1) if n not in lost]
    return _numbered(table.select(list(wanted)), pa.array(kept, pa.int64()), lost)


def _numbered(table: pa.Table, rows: pa.Array, lost: Mapping[int, str] | None) -> pa.Table:
    kept = table.append_column("source_row", rows)
    kept = kept.append_column("unread_line", pa.nulls(table.num_rows, pa.string()))
    if not lost:
        return kept
    lines = pa.table({"source_row": pa.array(lost, pa.int64()), "unread_line": list(lost.values())})
    return pa.concat_tables([kept, lines], promote_options="default")


def _instant(table: pa.Table, column: str, mapped: Mapped, path: Path) -> tuple[pa.Table, str]:
    """SQL of an instant that is text, local time or a number; local times get a column of their own."""
    found = table.schema.field(column).type
    if mapped.epoch is not None:
        per_second = _EPOCHS[mapped.epoch]
        count = cell(column, "whole", found)
        known = f"{count} BETWEEN 0 AND {_YEAR_2200 * per_second}"  # beyond it the product would overflow
        instant = f"make_timestamp({count} * {1_000_000 // per_second})"
        return table, f"CASE WHEN {known} THEN CAST({instant} AS TIMESTAMPTZ) END"
    if pa.types.is_integer(found):
        problem = f"column '{column}' has whole numbers where instants are wanted"
        raise DataError(path, problem, rows=table.num_rows, next_step="set epoch in the mapping file")
    with_offset = cell(column, "instant", found) if is_text(found) else "CAST(NULL AS TIMESTAMPTZ)"
    if mapped.timezone is None:
        if is_text(found):
            return table, with_offset  # a cell without an offset goes to quarantine
        problem = f"column '{column}' has instants without a time zone"
        raise DataError(path, problem, rows=table.num_rows, next_step="set timezone in the mapping file")
    with connect() as connection:  # null where a text is no time
        texts = connection.from_arrow(table.select([column]))
        local = texts.select(f"TRY_CAST({quoted(column)} AS TIMESTAMP) AS local").to_arrow_table()["local"]
    # In the hour that happens twice, the first; in the hour that never happens, the instant after it.
    zoned = pc.assume_timezone(local, mapped.timezone, ambiguous="earliest", nonexistent="latest")
    name = f"{column} in {mapped.timezone}"
    return table.append_column(name, zoned.cast(TIMESTAMP)), f"coalesce({with_offset}, {quoted(name)})"


def _constants(part: str, mapped: Mapped) -> dict[str, str]:
    """SQL of the fields that have no column."""
    constants = {name: literal(str(value)) for name, value in mapped.defaults.items()}
    if part == "impressions":
        constants.setdefault("type", "'impression'")
    if part != "items" and "event_id" not in mapped.columns:
        constants["event_id"] = f"format('{{}}:{{}}', {literal(mapped.file)}, source_row)"
    return constants


def _in_our_words(query: str, types: Mapping[str, str]) -> str:
    if not types:
        return query
    cases = " ".join(f"WHEN {literal(str(theirs))} THEN {literal(ours)}" for theirs, ours in types.items())
    return f"SELECT * REPLACE (CASE type {cases} ELSE type END AS type) FROM ({query})"
