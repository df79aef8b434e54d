"""Any shop's text or parquet files, by a mapping file that says which column is which canonical field.

    events:
      file: "days/*.csv.gz"         # relative to the shop's source folder; one name, a pattern or a list
      columns:                      # canonical field: the shop's column; what is not named stays null
        {event_ts: when, type: action, session_id: visit, item_id: sku, price: price}
      types: {detail: product_viewed, buy: purchase_completed}      # the shop's word: canonical type
      timezone: Europe/Berlin       # of instants that do not say their own
    impressions: ...                # optional; `type` is impression where it is not mapped
    items: {file: products.parquet, columns: {item_id: sku, title: name}, defaults: {currency: EUR}}

docs/ingest.md has every key. Events without an event_id column are numbered `<file>:<row>`: append to such a
file, never reorder it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import DataError
from feature_repo.events import TIMESTAMP
from pipelines.ingest.adapters.cells import (
    Extract,
    canonical_query,
    cell,
    is_text,
    kind_of,
    literal,
    open_parquet,
    quoted,
)
from pipelines.ingest.adapters.conversions import LIST_SEPARATOR, advice, converted, listed, number
from pipelines.ingest.adapters.instants import LOCAL, in_zone, of_counts, read_texts, unit_of, unit_of_texts
from pipelines.ingest.adapters.mapping import Impressions, Items, Part, read_mapping
from pipelines.ingest.files.delimited import read_delimited
from pipelines.ingest.files.exports import Cells, files_of, kind_of_file
from pipelines.ingest.files.feeds import read_feed
from pipelines.ingest.files.jsonlines import read_json

_BLANKS = " \t\u00a0\u202f"


class Table:
    """A folder of files and the mapping that explains them."""

    def __init__(self, source: Path, mapping: Path) -> None:
        self.source, self.mapping = source, read_mapping(mapping)

    def extract(self, part: str, connection: duckdb.DuckDBPyConnection) -> Extract | None:
        mapped: Part | None = getattr(self.mapping, part)
        if mapped is None:
            return None
        return extract_of(part, mapped, self.source, files_of(self.source, mapped.file), connection)


def extract_of(
    part: str,
    mapped: Part,
    source: Path,
    paths: list[Path],
    connection: duckdb.DuckDBPyConnection,
    read: Callable[[Path, Part], Cells] | None = None,
) -> Extract:
    """The part, from the files at `paths` as `read` (by default, as they are) gives their mapped columns.

    File n is registered in `connection` as `view_of(part, n)`. Raises DataError as the adapters do.
    """
    queries, told, rows = [], dict.fromkeys([f"{len(paths)} files"] if len(paths) > 1 else []), 0
    names = tuple(_name(path, source) for path in paths)
    for n, path in enumerate(paths):
        cells = _said(read(path, mapped) if read else _read(path, mapped), mapped)
        queries.append(_query(cells.table, view_of(part, n), n, names[n], mapped, path, connection))
        told |= {cells.told: None} if cells.told else {}
        rows += cells.table.num_rows
    if rows == 0:
        step = "export it again, or leave the part out of the mapping"
        raise DataError(paths[0], "the file has no rows", rows=0, next_step=step)
    skip = mapped.other_types == "skip"
    return Extract(paths[0], rows, " UNION ALL ".join(queries), names, tuple(told), skip)


def view_of(part: str, file: int) -> str:
    """Under which name the rows of a file are known to the query; they have a `source_row`."""
    return f"table adapter {part} {file}"


def wanted_of(mapped: Part) -> list[str]:
    """The columns that are read, each once; in a table they are called by their places here."""
    return list(dict.fromkeys(mapped.columns.values()))


def _name(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix() if path.is_relative_to(source) else str(path)


def _read(path: Path, mapped: Part) -> Cells:
    """The mapped columns, with place and fault of each row."""
    wanted = wanted_of(mapped)
    kind = kind_of_file(path)
    if kind == "feed" and not isinstance(mapped, Items):
        step = "name it as `file` of the items"
        raise DataError(path, "is XML; allowed: a product feed, for items alone", next_step=step)
    if kind == "feed" or (isinstance(mapped, Items) and mapped.is_feed):
        return read_feed(path, wanted, mapped.delimiter, mapped.encoding)
    if kind == "parquet":
        return Cells(_parquet(path, mapped, wanted))
    if kind == "json":
        return read_json(path, wanted, mapped.encoding, LIST_SEPARATOR)
    return read_delimited(path, wanted, mapped.delimiter, mapped.encoding)


def _said(cells: Cells, mapped: Part) -> Cells:
    """Words for nothing are null."""
    table, nothing = cells.table, pa.array(["", *mapped.nothing])
    for at in range(len(wanted_of(mapped))):
        if is_text(table.schema.field(str(at)).type):
            cells_of = table[str(at)]
            said = pc.is_in(pc.utf8_trim(cells_of, _BLANKS), nothing)
            table = table.set_column(
                table.column_names.index(str(at)), str(at), pc.if_else(said, None, cells_of)
            )
    return Cells(table, cells.told)


def _parquet(path: Path, mapped: Part, wanted: list[str]) -> pa.Table:
    kinds = {column: kind_of(mapped.fields_of.field(name)) for name, column in mapped.columns.items()}
    # Text stands for any kind: shops write numbers and instants as text, and each cell is judged.
    _, rows = open_parquet(path, kinds, lenient=True)
    try:
        table = pq.ParquetFile(path).read(columns=wanted).select(wanted)
        table = table.rename_columns([str(at) for at in range(len(wanted))])
        for at, field in enumerate(table.schema):
            if is_text(field.type):
                table = table.set_column(at, field.name, table[at].cast(pa.string()))
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        problem = f"cannot be read to its end: {error}"
        raise DataError(path, problem, rows=rows, next_step="export it again") from error
    nulls = {name: pa.nulls(rows, pa.string()) for name in ("unread_line", "unread_why")}
    placed = {"source_row": pa.array(range(1, rows + 1), pa.int64()), "line": pa.nulls(rows, pa.int64())}
    for name, values in (placed | nulls).items():
        table = table.append_column(name, values)
    return table


def _query(
    table: pa.Table,
    view: str,
    file: int,
    file_name: str,
    mapped: Part,
    path: Path,
    connection: duckdb.DuckDBPyConnection,
) -> str:
    """SQL of one file's rows; what it reads is registered as `view`."""
    cells, reasons = {}, {"row": "unread_why"}
    places = {name: str(wanted_of(mapped).index(column)) for name, column in mapped.columns.items()}
    for name, column in places.items():
        kind, found = kind_of(mapped.fields_of.field(name)), table.schema.field(column).type
        if kind == "instant":
            table, value, reasons[name] = _instant(table, column, mapped.columns[name], mapped, path)
        elif is_text(found):
            value = converted(quoted(column), name, kind, mapped.decimal)
            reasons[name] = literal(advice(kind, mapped.decimal))
        else:
            value = cell(column, kind)
        if kind == "texts":
            itself = quoted(places["item_id"]) if name == "accessories" and "item_id" in places else "NULL"
            value = listed(value, f"CAST({itself} AS VARCHAR)")
        cells[name] = (column, value)
    connection.register(view, table)
    query = canonical_query(
        mapped.fields_of,
        cells,
        quoted(view),
        "source_row",
        place=f"{file} AS file, line",
        constants=_constants(mapped, file_name),
        unread_line="unread_line",
        reasons=reasons,
    )
    return _in_our_words(query, mapped.types)


def _instant(table: pa.Table, column: str, title: str, mapped: Part, path: Path) -> tuple[pa.Table, str, str]:
    """(table with what is needed, SQL of the instant, SQL of why there is none).

    `title` is what the shop calls the column.
    """
    values, how = table[column], mapped.reading
    found = values.type
    if pa.types.is_null(found) or (pa.types.is_timestamp(found) and found.tz):
        return table, cell(column, "instant"), "NULL"
    text = is_text(found)
    local = pa.types.is_timestamp(found) or pa.types.is_date(found)
    if how.epoch is not None and not local:
        count = number(quoted(column)) if text else cell(column, "number")
        why = f"not a count of {how.epoch} from 1970 to 2200, as epoch in the mapping says"
        return table, of_counts(count, how.epoch), literal(why)
    if not local:
        _require_no_count(values, title, path)
    try:
        if text:
            instants, reasons = read_texts(values.combine_chunks(), how)
        elif how.timezone is None:
            problem = f"column '{title}' has instants without a time zone, for example {_first(values)}"
            raise DataError(path, problem, rows=len(values), next_step="set timezone in the mapping file")
        else:
            naive = values.combine_chunks().cast(LOCAL)
            instants, reasons = in_zone(naive, how.timezone), pa.nulls(len(values), pa.string())
    except pa.ArrowException as error:
        step = "correct timezone in the mapping, or export the column as text"
        raise DataError(path, f"column '{title}': {error}", rows=len(values), next_step=step) from error
    value, why = f"instant of {column}", f"why not {column}"
    if value not in table.column_names:
        table = table.append_column(value, instants.cast(TIMESTAMP)).append_column(why, reasons)
    return table, quoted(value), quoted(why)


def _require_no_count(values: pa.ChunkedArray, column: str, path: Path) -> None:
    """Raise DataError where a whole column counts since 1970 and the mapping does not say so."""
    first = _first(values)
    if is_text(values.type):
        unit = unit_of_texts(values)
    else:
        unit = unit_of(float(first)) if first is not None else None
    if unit is not None or not is_text(values.type):
        problem = f"column '{column}' has numbers where instants are wanted, for example {first}"
        step = f"set epoch: {unit} in the mapping" if unit else "set epoch (s, ms or us) in the mapping"
        raise DataError(path, problem, rows=len(values), next_step=step)


def _first(values: pa.ChunkedArray) -> str | None:
    """The first value that is there, None where there is none."""
    there = values.drop_null()
    return there[0].cast(pa.string()).as_py() if len(there) else None


def _constants(mapped: Part, file_name: str) -> dict[str, str]:
    """SQL of what stands where there is no column, or where its cell says nothing."""
    constants = mapped.constants()
    if isinstance(mapped, Impressions):
        constants.setdefault("type", "'impression'")
    if "event_id" in mapped.fields_of.names and "event_id" not in mapped.columns:
        # Of one width, so that ids sort as the rows do.
        constants["event_id"] = f"format('{{}}:{{:09d}}', {literal(file_name)}, source_row)"
    return constants


def _in_our_words(query: str, types: Mapping[str, str]) -> str:
    if not types:
        return query
    cases = " ".join(f"WHEN {literal(theirs)} THEN {literal(ours)}" for theirs, ours in types.items())
    return f"SELECT * REPLACE (CASE type {cases} ELSE type END AS type) FROM ({query})"
