"""Exports of shop platforms whose form is known: a mapping that is built in, over rows that are unfolded.

An adapter gives a `mapping` in the schema of the mapping file and, where one record of a file holds several
line items or leaves cells blank, `unfold`. Cells, instants, ids and quarantine are those of `table`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pyarrow as pa

from feature_repo.errors import DataError, shorten
from feature_repo.events import ITEM_SCHEMA, TYPES
from feature_repo.vocabulary.naming import NOTHING
from pipelines.ingest.adapters.cells import NO_FAULT, Extract, literal, quoted
from pipelines.ingest.adapters.conversions import LIST_SEPARATOR
from pipelines.ingest.adapters.mapping import Part, ShopMapping, read_catalogue
from pipelines.ingest.adapters.table import extract_of, view_of, wanted_of
from pipelines.ingest.files.exports import Cells, files_of
from pipelines.ingest.files.records import Record, read_records

NAMED = ("title", "category_path", "brand", "currency")
"""What an event may tell of its item, beside the price: columns `item.title` ... of an unfolded row."""
_SPOKEN = tuple(f"item.{name}" for name in NAMED)
_OTHER = "other: {}"
_BATCH = 20_000  # rows that are Python's before they are arrow's


class Platform:
    """A folder of one platform's files. Types that are not in the mapping are passed over with a count."""

    mapping: ClassVar[ShopMapping]
    needed: ClassVar[Mapping[str, tuple[str, ...]]]  # part: columns without which a file is another one
    optional: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # part: of text files, what else is read
    lacks: ClassVar[str]  # told once

    def __init__(self, source: Path, catalogue: Path | None = None) -> None:
        self.source = source
        self._events: tuple[duckdb.DuckDBPyConnection, Extract] | None = None  # read, and where
        self.items = read_catalogue(catalogue).items if catalogue else None

    def unfold(
        self, part: str, path: Path, records: Iterable[Record]
    ) -> Iterator[tuple[Record, dict[str, Any]]]:
        """Rows by the mapping's columns, each with the record that it comes from."""
        return ((record, dict(record.values)) for record in records)

    def extract(self, part: str, connection: duckdb.DuckDBPyConnection) -> Extract | None:
        if part == "items" and self.items:
            paths = files_of(self.source, self.items.file)
            return extract_of(part, self.items, self.source, paths, connection)
        mapped: Part | None = getattr(self.mapping, part)
        if part == "impressions":  # they are among the events
            return None
        found = self._extracted(part, mapped, connection) if mapped else None
        if part == "items":
            return self._catalogue(found, connection)
        if found is None:
            raise DataError(self.source, "no events", next_step="docs/ingest.md names the files")
        self._events = (connection, found)
        return _told(found, self.lacks)

    def paths_of(self, mapped: Part) -> list[Path]:
        """The files of a part that are there."""
        return sorted({p for pattern in mapped.file for p in self.source.glob(pattern) if p.is_file()})

    def records_of(self, part: str, mapped: Part, path: Path) -> tuple[Iterable[Record], str]:
        """All records of a file, in order, and what was found out about its form."""
        known = (*self.needed[part], *self.optional.get(part, ()), *wanted_of(mapped))
        return read_records(path, list(dict.fromkeys(known)), self.needed[part])

    def _extracted(self, part: str, mapped: Part, connection: duckdb.DuckDBPyConnection) -> Extract | None:
        paths = self.paths_of(mapped)
        if not paths and part == "items":
            return None
        paths = paths or files_of(self.source, mapped.file[:1])  # which names what is there

        def read(path: Path, mapped: Part) -> Cells:
            return self._cells(part, mapped, path)

        return extract_of(part, mapped, self.source, paths, connection, read)

    def _cells(self, part: str, mapped: Part, path: Path) -> Cells:
        records, told = self.records_of(part, mapped, path)
        wanted = wanted_of(mapped)
        names = {name: str(at) for at, name in enumerate(wanted)} | {n: n for n in _SPOKEN}
        lost: list[Record] = []
        missing, there = set(self.needed[part]), dict[str, None]()

        def readable() -> Iterator[Record]:
            for record in records:
                if record.lost is not None:
                    lost.append(record)
                    continue
                if missing:
                    missing.difference_update(record.values)
                    there.update(dict.fromkeys(record.values))
                yield record

        rows, chunks = self.unfold(part, path, readable()), []
        while batch := list(islice(rows, _BATCH)):
            chunks.append(_chunk(batch, names))
        if missing and there:
            name = next(name for name in self.needed[part] if name in missing)
            problem = f"'{name}' is missing; there are {shorten(', '.join(there), 300)}"
            raise DataError(path, problem, next_step="docs/ingest.md names the export")
        table = pa.concat_tables([*chunks, _chunk([(record, {}) for record in lost], names)])
        # By record; the line items of one keep their order.
        table = table.append_column("n", pa.array(range(table.num_rows))).sort_by(
            [("row", "ascending"), ("n", "ascending")]
        )
        return Cells(
            table.append_column("source_row", pa.array(range(1, table.num_rows + 1), pa.int64())), told
        )

    def _catalogue(self, given: Extract | None, connection: duckdb.DuckDBPyConnection) -> Extract:
        """The products of the export, and the items that only events name: of each word the latest."""
        if self._events is None or self._events[0] is not connection:
            self.extract("events", connection)
        assert self._events is not None
        events = self._events[1]
        words = ", ".join(_spoken(name) for name in NAMED)
        told = " UNION ALL ".join(
            f"SELECT {n} AS file, source_row, {words} FROM {quoted(view_of('events', n))}"
            for n in range(len(events.files))
        )
        named = f"SELECT * FROM ({events.query}) JOIN ({told}) USING (file, source_row)"
        latest = {name: f"arg_max({name}, moment)" for name in NAMED}
        latest["price"] = "arg_max(price, moment) FILTER (price >= 0 AND isfinite(price))"
        fields = ", ".join(f"{latest.get(n, 'NULL')} AS {n}" for n in ITEM_SCHEMA.names if n != "item_id")
        types = ", ".join(map(literal, TYPES))
        known = given.query if given else "SELECT NULL AS item_id, NULL AS unread_field"
        query = f"""SELECT {len(given.files) if given else 0} AS file,
            row_number() OVER (ORDER BY item_id) AS source_row, NULL AS line, {NO_FAULT}, item_id, {fields}
            FROM (SELECT *, (event_ts, file, source_row) AS moment FROM ({named}))
            WHERE unread_field IS NULL AND event_ts IS NOT NULL AND session_id IS NOT NULL
            AND type IN ({types}) AND item_id NOT IN (
                SELECT item_id FROM ({known}) WHERE item_id IS NOT NULL AND unread_field IS NULL)
            GROUP BY item_id"""
        if given:
            query = f"SELECT * FROM ({given.query}) UNION ALL BY NAME SELECT * FROM ({query})"
        of_events = "made of the items that the events name"
        form = "of the products export; an item that only events name is made of them" if given else of_events
        names = (*(given.files if given else ()), "items of the events")
        return _told(Extract(events.source, given.rows if given else 0, query, names), form)


def said(value: Any) -> str | None:
    """The value as text without blanks around it; None for words that say nothing."""
    text = (_text(value) or "").strip()
    return None if text in NOTHING else text


def tags_of(text: str | None) -> str | None:
    """`sale, winter` as a list of ours; None without any."""
    return LIST_SEPARATOR.join(filter(None, map(said, (text or "").split(",")))) or None


def type_of(word: str | None, types: Mapping[str, str]) -> str | None:
    """The platform's word; one that is not in `types` but is ours by chance is made another."""
    return word if word is None or word in types else _OTHER.format(word)


def path_of(steps: Iterable[Any]) -> str | None:
    """Names of nested categories as one path.

    >>> path_of(["Home", "(not set)", "Mugs"])
    'Home/Mugs'
    """
    return "/".join(name for step in steps if (name := said(step))) or None


def listed(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a nested list, or of its JSON; none for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value, parse_int=str, parse_float=str, parse_constant=str)
        except (ValueError, RecursionError):
            value = None
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _told(extract: Extract, told: str) -> Extract:
    return Extract(
        extract.source,
        extract.rows,
        extract.query,
        extract.names,
        (*extract.told, told),
        extract.skip_other_types,
    )


def _spoken(name: str) -> str:
    words = ", ".join(map(literal, NOTHING))
    column = quoted(f"item.{name}")
    return f"CASE WHEN trim({column}) NOT IN ({words}) THEN {column} END AS {name}"


def _chunk(rows: list[tuple[Record, dict[str, Any]]], names: Mapping[str, str]) -> pa.Table:
    """Rows as columns, so that not all of them are Python's at once; `row` is that of the record."""
    cells = {
        name: pa.array([_text(row.get(key)) for _, row in rows], pa.string()) for key, name in names.items()
    }
    lost = [record.lost or (None, None) for record, _ in rows]
    places = {
        "row": pa.array([record.row for record, _ in rows], pa.int64()),
        "line": pa.array([record.line for record, _ in rows], pa.int64()),
        "unread_line": pa.array([text for text, _ in lost], pa.string()),
        "unread_why": pa.array([why for _, why in lost], pa.string()),
    }
    return pa.table(cells | places)


def _text(value: Any) -> str | None:
    """A value as a cell; a list or an object, which no cell holds, as its JSON."""
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    return json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)
