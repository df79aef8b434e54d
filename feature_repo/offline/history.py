"""Backfill: the folds run over all recorded events, one stored row per key and instant.

A row is the state after the last event of its instant. Events are read key by key, in the order
(event_ts, event_id), so one state is alive at a time and memory does not grow with the history. DuckDB sorts.

Counts of items are the bulk of the rows (an impression touches a session and an item) and have a closed form:
feature_repo.offline.item_counts computes them without a python step per event.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.events import SCHEMA, TIMESTAMP, UNCOUNTED
from feature_repo.features.sources import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.features.stored import USER_HISTORY
from feature_repo.files import chunks, write_parquet
from feature_repo.folds.fold import Column, Event, Fold
from feature_repo.offline.duck import connect
from feature_repo.places import existing

FILES = ("events.parquet", "impressions.parquet")
ARROW_TYPES = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "list<string>": pa.list_(pa.string()),
    "list<int64>": pa.list_(pa.int64()),
}


class Row(NamedTuple):
    """One stored row; `ts` is its newest instant, `created` when the last part was learned, both in us."""

    key: str
    ts: int
    created: int
    values: Mapping[str, Any]


class Fact(NamedTuple):
    """An event, and the instant `at` (us) from which its key knows it: a login brings earlier ones."""

    event: Event
    at: int
    created: int


def backfill(fold: Fold, facts: Iterable[Fact]) -> Iterator[Row]:
    """Rows of `fold` from facts sorted by (key, at, event_id).

    Three events of one session, two of them at the same instant, give two rows.
    """
    place = Event._fields.index(fold.key)
    key, state, at, created = None, fold.new(), 0, 0
    for event, instant, learned in facts:
        if event[place] != key or instant != at:
            if key is not None:
                yield Row(key, at, created, fold.row(state))
            if event[place] != key:
                key, state, created = str(event[place]), fold.new(), 0
            else:
                state = fold.resumed(state, at, instant)
            at = instant
        state = fold.step(state, event)
        created = max(created, learned)
    if key is not None:
        yield Row(key, at, created, fold.row(state))


def schema(key: str, columns: Iterable[Column]) -> pa.Schema:
    """Columns of an offline file: the key, two timestamps, then the view's own."""
    head = [(key, pa.string()), (EVENT_TIMESTAMP, TIMESTAMP), (CREATED_TIMESTAMP, TIMESTAMP)]
    return pa.schema(head + [(c.name, ARROW_TYPES[c.dtype]) for c in columns])


def tables(fold: Fold, rows: Iterable[Row], chunk: int) -> Iterator[pa.Table]:
    """`rows` as tables of at most `chunk` rows, in the schema of the fold's offline file."""
    shape = schema(fold.key, fold.columns)
    yield from (_table(shape, some) for some in chunks(rows, chunk))


def _table(shape: pa.Schema, rows: list[Row]) -> pa.Table:
    head = [[row.key for row in rows], [row.ts for row in rows], [row.created for row in rows]]
    arrays = [pa.array(values, field.type) for values, field in zip(head, shape, strict=False)]
    values = [row.values for row in rows]
    arrays += [pa.array([v[field.name] for v in values], field.type) for field in list(shape)[3:]]
    return pa.Table.from_arrays(arrays, schema=shape)


@contextmanager
def raw_events(raw: Path, memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection with the view `events`: both files of `raw`, timestamps as int64 us.

    Without consent an event has no user here, so it reaches no user's history. Raises DataError when a
    file is missing.
    """
    files = [existing(raw / name, "ingest", *SCHEMA.names) for name in FILES]
    connection = connect(memory_limit=memory)
    rest = [name for name in Event._fields if name not in ("ts", "user_id")]
    union = " UNION ALL ".join(map(_selected, files))
    connection.execute(
        f"CREATE VIEW events AS SELECT event_id, epoch_us(event_ts) AS ts, epoch_us(created_ts) AS created,"
        f" CASE WHEN consent THEN user_id END AS user_id, {', '.join(rest)} FROM ({union})"
    )
    try:
        yield connection
    finally:
        connection.close()


def _selected(file: Path) -> str:
    """SQL: the canonical columns and `counted`: an export of the log may carry what the door found."""
    counted = f"{UNCOUNTED} IS NULL" if UNCOUNTED in pq.read_schema(file).names else "true"
    return f"SELECT {', '.join(SCHEMA.names)}, {counted} AS counted FROM read_parquet('{_quoted(file)}')"


def of_fold(fold: Fold) -> str:
    """SQL condition: the events that `fold` reads."""
    types = ", ".join(f"'{kind}'" for kind in sorted(fold.types))
    evidence = " AND counted" if fold.evidence else ""
    return f"type IN ({types}) AND {fold.key} IS NOT NULL AND item_id IS NOT NULL{evidence}"


def sorted_facts(connection: duckdb.DuckDBPyConnection, fold: Fold, chunk: int) -> Iterator[Fact]:
    """What `backfill` needs, from the connection of `raw_events`.

    A user's facts include those of the table `adopted` (features/adoption.py), which must have been made.
    """
    fields = ", ".join(Event._fields)
    facts = f"SELECT ts AS known_at, created, event_id, 1 AS own, 0 AS place, {fields} FROM events"
    facts += f" WHERE {of_fold(fold)}"
    if fold is USER_HISTORY:
        facts += f" UNION ALL SELECT known_at, created, event_id, 0 AS own, place, {fields} FROM adopted"
    query = f"SELECT known_at, created, {fields} FROM ({facts})"
    query += f" ORDER BY {fold.key}, known_at, event_id, own, place"
    reader: pa.RecordBatchReader = connection.sql(query).to_arrow_reader(chunk)
    for batch in reader:
        at, created, *columns = [column.to_pylist() for column in batch.columns]
        yield from map(Fact, map(Event._make, zip(*columns, strict=True)), at, created)


def write(path: Path, shape: pa.Schema, parts: Iterable[pa.Table], row_group: int) -> int:
    """Write `parts` to `path`, replacing it whole at the end; the number of rows. Same input, same bytes."""
    return write_parquet(path, shape, parts, row_group, **_encodings(shape))


def _encodings(shape: pa.Schema) -> dict[str, Any]:
    """Split bytes for sums, deltas for instants: 7.6 million rows take 340 MB instead of 582."""
    sums = [f.name for f in shape if pa.types.is_floating(f.type)]
    instants = [f.name for f in shape if pa.types.is_integer(f.type) or pa.types.is_timestamp(f.type)]
    encoding = dict.fromkeys(sums, "BYTE_STREAM_SPLIT") | dict.fromkeys(instants, "DELTA_BINARY_PACKED")
    texts = [f.name for f in shape if pa.types.is_string(f.type)]
    lists = [f"{f.name}.list.element" for f in shape if pa.types.is_list(f.type)]
    return {"column_encoding": encoding, "use_dictionary": texts + lists}


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
