"""Columns of a file that somebody else wrote: are they there, are they readable, and how do their cells
convert.

A column that is missing or of a hopeless type is an error of the file (DataError). A single cell that does
not convert is an error of its row: the row goes to quarantine with the cell's text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import DataError

# Kind of a value -> the DuckDB type in which it is checked. Wider than the canonical type: 3,000,000,000 or
# 1.5 in an int32 column must reach the check and be judged by its value, not fail the cast of the whole file.
WIDE = {
    "text": "VARCHAR",
    "whole": "DOUBLE",
    "number": "DOUBLE",
    "instant": "TIMESTAMPTZ",
    "flag": "BOOLEAN",
    "texts": "VARCHAR[]",
}
# What a cell that does not convert should have been; worded like feature_repo.events.check_event.
READABLE = {
    "text": "text",
    "whole": "a whole number",
    "number": "a finite number",
    "instant": "an instant with a time zone, for example 2026-01-31T12:00:00Z",
    "flag": "true or false",
    "texts": "a list of texts",
}
NO_FAULT = "NULL AS unread_field, NULL AS unread_value, NULL AS unread_reason"
"""Columns of an Extract's query whose cells are all readable."""


@dataclass(frozen=True)
class Extract:
    """One part of an export, seen through canonical columns; nothing is read before the query runs.

    `query` gives every column of the part's schema in its WIDE type, `file` (place in `files`), `source_row`
    and `line` (both 1-based; line is null where the file has none) and, for a row with an unreadable cell,
    `unread_field`, `unread_value` and, where the rule's own reason says too little, `unread_reason`.
    """

    source: Path
    rows: int
    query: str
    names: tuple[str, ...] = ()  # of its files, as told to a reader; by default the source's own
    told: tuple[str, ...] = ()  # what was found out about its form
    skip_other_types: bool = False  # types that are not canonical are no fault

    @property
    def files(self) -> tuple[str, ...]:
        return self.names or (self.source.name,)


def kind_of(field: pa.Field) -> str:
    """Key of WIDE for a field of a canonical schema.

    >>> kind_of(pa.field("stock", pa.int32()))
    'whole'
    """
    kinds = {
        pa.string(): "text",
        pa.int32(): "whole",
        pa.float64(): "number",
        pa.bool_(): "flag",
        pa.list_(pa.string()): "texts",
    }
    return "instant" if pa.types.is_timestamp(field.type) else kinds[field.type]


def quoted(name: str) -> str:
    """SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """SQL text."""
    return "'" + text.replace("'", "''") + "'"


def parquet_source(path: Path) -> str:
    """FROM clause that also numbers the rows: `file_row_number`, from 0."""
    return f"read_parquet({literal(str(path))}, file_row_number = true)"


def open_parquet(path: Path, kinds: Mapping[str, str], *, lenient: bool = False) -> tuple[pa.Schema, int]:
    """Schema and number of rows of a parquet file that has the columns of `kinds` (name -> kind).

    Reads the footer only. Raises DataError: no file, empty, not parquet or truncated, no rows, a column
    missing, a column of a type that cannot hold its kind. `lenient` lets text stand for any kind, and
    numbers, dates or local times for instants.
    """
    require_file(path)
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(path, f"not a readable parquet file: {error}", next_step="export it again") from error
    require_columns(path, schema.names, kinds, rows)
    for name, kind in kinds.items():
        found = schema.field(name).type
        if not _holds(found, kind) and not (lenient and _may_hold(found, kind)):
            problem = f"column '{name}' has type {found}; allowed: {READABLE[kind]}"
            raise DataError(path, problem, rows=rows, next_step="export the column with that type")
    return schema, rows


def require_file(path: Path) -> None:
    """Raise DataError unless `path` is a file with at least one byte."""
    if not path.is_file():
        raise DataError(path, "no such file", next_step="check the shop's source folder in params.yaml")
    if path.stat().st_size == 0:
        raise DataError(path, "the file is empty", rows=0, next_step="export it again")


def require_columns(path: Path, found: list[str], wanted: Mapping[str, str], rows: int) -> None:
    """Raise DataError for the first of `wanted` that is not in `found` or there twice, or for no rows."""
    for name in wanted:
        if found.count(name) > 1:
            problem = f"column '{name}' is there {found.count(name)} times"
            raise DataError(path, problem, rows=rows, next_step="give each column a name of its own")
        if name not in found:
            problem = f"column '{name}' is missing; columns are {', '.join(found)}"
            raise DataError(path, problem, rows=rows, next_step="add the column or correct the mapping")
    if rows == 0:
        step = "export it again, or leave the file out"
        raise DataError(path, "the file has no rows", rows=0, next_step=step)


def cell(column: str, kind: str) -> str:
    """SQL that converts a column that holds its kind to WIDE[kind]; null where the cell does not convert.

    >>> cell("n", "whole")
    'TRY_CAST("n" AS DOUBLE)'
    """
    return f"TRY_CAST({quoted(column)} AS {WIDE[kind]})"


def canonical_query(
    schema: pa.Schema,
    cells: Mapping[str, tuple[str, str]],
    source: str,
    row: str,
    *,
    place: str = "0 AS file, NULL AS line",
    constants: Mapping[str, str] | None = None,
    unread_line: str = "NULL",
    reasons: Mapping[str, str] | None = None,
) -> str:
    """Query of an Extract.

    `cells` maps a canonical field to (source column, SQL of its conversion), `constants` to SQL what stands
    where there is no column or its cell is null; any other field is null. But `consent` is true, and
    `created_ts` is `event_ts` wherever it is null: what nobody recorded was learned when it happened. `row`
    is the SQL of source_row, `unread_line` that of the text of a row that could not be split into cells,
    `reasons` that of why a field's cell, or the `row`, could not be read.
    """
    reasons, constants = reasons or {}, constants or {}
    unread = [f"WHEN {unread_line} IS NOT NULL THEN 'row'"]
    texts = [f"WHEN {unread_line} IS NOT NULL THEN {unread_line}"]
    whys = [f"WHEN {unread_line} IS NOT NULL THEN {reasons.get('row', 'NULL')}"]
    values = {"consent": "true", **constants}
    for name, (column, value) in cells.items():
        failed = f"WHEN {quoted(column)} IS NOT NULL AND ({value}) IS NULL THEN"
        unread.append(f"{failed} {literal(name)}")
        texts.append(f"{failed} CAST({quoted(column)} AS VARCHAR)")
        whys.append(f"{failed} {reasons.get(name, 'NULL')}")
        values[name] = f"coalesce({value}, {constants[name]})" if name in constants else value
    if "created_ts" in schema.names:
        learned = [values[name] for name in ("created_ts", "event_ts") if name in values]
        values["created_ts"] = f"coalesce({', '.join(learned)})" if learned else "NULL"
    fields = ", ".join(f"{values.get(name, 'NULL')} AS {quoted(name)}" for name in schema.names)
    return f"""
        SELECT {place}, {row} AS source_row, CASE {" ".join(unread)} END AS unread_field,
        CASE {" ".join(texts)} END AS unread_value, CASE {" ".join(whys)} END AS unread_reason,
        {fields} FROM {source}"""


def is_text(found: pa.DataType) -> bool:
    """True for every arrow spelling of a string."""
    if pa.types.is_dictionary(found):
        return is_text(found.value_type)
    return pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)


def _holds(found: pa.DataType, kind: str) -> bool:
    if pa.types.is_null(found):  # a column without a single value
        return True
    number = pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found)
    return {
        "text": is_text(found) or pa.types.is_integer(found),
        "whole": number,
        "number": number,
        "instant": pa.types.is_timestamp(found) and found.tz is not None,
        "flag": pa.types.is_boolean(found),
        "texts": pa.types.is_list(found) and is_text(found.value_type),
    }[kind]


def _may_hold(found: pa.DataType, kind: str) -> bool:
    count = pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found)
    local = pa.types.is_timestamp(found) or pa.types.is_date(found)
    return is_text(found) or (kind == "instant" and (count or local))
