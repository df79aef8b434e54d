"""What the running shop has seen since its export, as parts of an import.

    data/logs/events/<first>-<last>.parquet   events, as `endcap land` wrote them down
    data/logs/items                           what was said of items (feature_repo/offline/item_log.py)

The export is the truth up to its newest event: live events count after that instant alone. So a shop that
exports again, whatever its export calls an event, counts none twice. Items that no export has yet join the
catalogue, on sale from the first word that was said of them.
"""

from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from feature_repo.clock import instant, micros
from feature_repo.events import EARLIEST, ITEM_SCHEMA, SCHEMA
from feature_repo.features.catalogue import SAID
from feature_repo.features.words import row_of
from feature_repo.offline import event_log, item_log
from pipelines.ingest.adapters.cells import (
    NO_FAULT,
    Extract,
    canonical_query,
    cell,
    kind_of,
    literal,
    open_parquet,
)

LIVE, BORN = "live", "born"  # parts of an import beside those of the export
END_OF_TIME = 1 << 62


def landed_events(folder: Path, connection: duckdb.DuckDBPyConnection, events: str) -> Extract | None:
    """Live events after the newest accepted one of the table `events`; None where nothing was landed.

    Raises DataError for a file that is damaged.
    """
    if not (files := event_log.files(folder)):
        return None
    kinds = {field.name: kind_of(field) for field in SCHEMA}
    for file in files:
        open_parquet(file, kinds)
    names = [str(file) for file in files]
    until = exported_until(connection, events)
    source = f"""(SELECT *, list_position({names}, filename) - 1 AS place FROM read_parquet(
        [{", ".join(map(literal, names))}], filename = true, file_row_number = true)
        WHERE event_ts > TIMESTAMPTZ {literal(until.isoformat())})"""
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {source}").fetchall()
    if not rows:
        return None
    cells = {name: (name, cell(name, kind)) for name, kind in kinds.items()}
    query = canonical_query(
        SCHEMA, cells, source, row="file_row_number + 1", place="place AS file, NULL AS line"
    )
    told = (f"of the running shop, after {until.isoformat(timespec='seconds')}",)
    return Extract(folder, rows, query, names=tuple(file.name for file in files), told=told)


def landed_items(folder: Path, connection: duckdb.DuckDBPyConnection, items: str) -> Extract | None:
    """Items of the log that are not in the table `items`; None where there is none."""
    known = {item for (item,) in connection.execute(f"SELECT item_id FROM {items}").fetchall()}
    born = {item: told for item, told in item_log.read(folder).items() if item not in known}
    rows = []
    for item, told in sorted(born.items()):
        words = item_log.words_at(told, END_OF_TIME)
        row = {"item_id": item} | row_of(words)
        first = min(one.ts if one.ts > micros(EARLIEST) else one.created for one in told)
        row["available_from"] = instant(max(row["available_from"], first))
        rows.append({name: row.get(name) for name in ITEM_SCHEMA.names})
    if not rows:
        return None
    connection.register("born items", pa.Table.from_pylist(rows, ITEM_SCHEMA))
    fields = ", ".join(ITEM_SCHEMA.names)
    query = f"""SELECT 0 AS file, row_number() OVER (ORDER BY item_id) AS source_row, NULL AS line,
        {NO_FAULT}, {fields} FROM "born items" """
    return Extract(folder, len(rows), query, told=("items of the running shop that no export has",))


def exported_until(connection: duckdb.DuckDBPyConnection, events: str) -> datetime:
    """The newest accepted event of the export; EARLIEST where it has none."""
    query = f"SELECT epoch_us(max(event_ts)) FROM {events} WHERE rule IS NULL"
    ((newest,),) = connection.execute(query).fetchall()
    return EARLIEST if newest is None else instant(newest)


def as_of(schema: pa.Schema, said: datetime) -> pa.Schema:
    """`schema` of a catalogue that was said at `said`, and not when the newest live event came."""
    return schema.with_metadata({SAID: str(micros(said))})
