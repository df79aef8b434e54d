"""The migrate job: a history that Metarank or Gorse kept as canonical files, for `endcap ingest`.

Their words, ids and times mean what they mean at the doors for live events (serving/payloads). Visits that
the history does not name are made of events less than 30 minutes apart, as Segment's are.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from feature_repo.clock import instant, micros
from feature_repo.errors import DataError, EventError, ParamsError, shorten
from feature_repo.events import EARLIEST, ITEM_SCHEMA, NAMES, SCHEMA, check_event
from feature_repo.files import whole
from feature_repo.offline.duck import connect
from feature_repo.params import load
from feature_repo.vocabulary.trackers import GORSE_COLUMNS
from pipelines.ingest.adapters.cells import literal
from pipelines.ingest.adapters.segment import in_visits
from pipelines.ingest.files.records import Record, read_records
from serving.payloads import gorse, metarank
from serving.payloads.payload import Dropped, System
from serving.payloads.terms import Terms

BATCH = 20_000
FIRST_US, LAST_US = micros(EARLIEST), micros("2100-01-01")
DRAFT = SCHEMA.append(pa.field("file", pa.int64())).append(pa.field("source_row", pa.int64()))


@dataclass(frozen=True)
class History:
    """How a system's files are read: of which columns (of text), which record is an event, which an item."""

    columns: tuple[str, ...]
    row: Callable[[Mapping[str, Any]], dict[str, Any]]
    happened: Callable[[Mapping[str, Any]], bool]
    read: System
    item_of: Callable[[Any], dict[str, Any] | None]


HISTORIES = {
    "metarank": History(
        ("event",),
        dict,
        lambda row: row.get("event") not in ("item", "user"),
        metarank.FEEDBACK,
        metarank.item_of,
    ),
    "gorse": History(
        tuple(GORSE_COLUMNS),
        gorse.named,
        lambda row: row.get("FeedbackType") is not None,
        gorse.FEEDBACK,
        gorse.item_of,
    ),
}


@dataclass
class Tally:
    """What became of the records, by kind; `first` tells where the first refused one stands, and why."""

    records: int = 0
    events: Counter[str] = field(default_factory=Counter)  # of ours, by type
    dropped: Counter[str] = field(default_factory=Counter)  # of theirs, by reason
    refused: int = 0
    first: str = ""
    items: dict[str, dict[str, Any]] = field(default_factory=dict)


def migrate(system: str, files: list[Path], into: Path, terms: Terms, latest: datetime) -> Tally:
    """Write events.parquet, impressions.parquet and items.parquet into the folder `into`.

    A record that is no event of ours is counted, never an error. Raises ParamsError for a system that is not
    known, DataError for a file that cannot be read or where nothing happened.
    """
    if system not in HISTORIES:
        raise ParamsError(f"migrate: '{system}' is unknown; allowed: {', '.join(HISTORIES)}")
    history, tally = HISTORIES[system], Tally()
    into.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".migrate-", dir=into) as name:
        draft = Path(name) / "draft.parquet"
        with pq.ParquetWriter(draft, DRAFT) as writer:
            for number, path in enumerate(files):
                for rows in _batches(_events(history, number, path, terms, latest, tally)):
                    writer.write_table(pa.Table.from_pylist(rows, schema=DRAFT))
        if not tally.events:
            step = "name the files that hold its events; docs/compat.md tells which"
            raise DataError(files[0], "nothing that happened is in it", rows=tally.records, next_step=step)
        _in_their_visits(draft, into, name)
    items = pa.Table.from_pylist([_whole_item(item) for item in tally.items.values()], schema=ITEM_SCHEMA)
    if items.num_rows:
        with whole(into / "items.parquet") as place:
            pq.write_table(items.sort_by("item_id"), place)
    return tally


def _events(
    history: History, number: int, path: Path, terms: Terms, latest: datetime, tally: Tally
) -> Iterator[dict[str, Any]]:
    records, _ = read_records(path, list(history.columns), ())
    for record in records:
        tally.records += 1
        row = history.row(record.values)
        if record.lost is not None:
            _refuse(tally, path, record, record.lost[1] or "not a record")
        elif not history.happened(row):
            if item := history.item_of(row):
                tally.items[item["item_id"]] = tally.items.get(item["item_id"], {}) | item
            else:
                tally.dropped["no_event_and_no_item"] += 1
        else:
            yield from _checked(history, number, path, record, row, terms, latest, tally)


def _checked(
    history: History,
    number: int,
    path: Path,
    record: Record,
    row: dict[str, Any],
    terms: Terms,
    latest: datetime,
    tally: Tally,
) -> Iterator[dict[str, Any]]:
    try:
        found = history.read.translate(row, terms)
    except Dropped as why:
        tally.dropped[why.args[0]] += 1
        return
    for event in found:
        try:
            at = instant(event["event_ts"]) if type(event["event_ts"]) is int else event["event_ts"]
            told = {"consent": True, **event, "event_ts": at}
            check_event(told, latest)
        except (EventError, OverflowError) as error:
            _refuse(tally, path, record, str(error))
            continue
        tally.events[event["type"]] += 1
        yield {name: told.get(name) for name in NAMES} | {
            "created_ts": at,
            "file": number,
            "source_row": record.row,
        }


def _refuse(tally: Tally, path: Path, record: Record, why: str) -> None:
    tally.refused += 1
    tally.first = tally.first or f"row {record.row} of {path.name}: {shorten(why, 200)}"


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def _in_their_visits(draft: Path, into: Path, spill: str) -> None:
    """events.parquet and impressions.parquet, in the order of their times."""
    source = f"read_parquet({literal(str(draft))})"
    columns = ", ".join(NAMES)
    unnamed = in_visits(f"SELECT * FROM {source} WHERE session_id = user_id")
    named = f"SELECT * FROM {source} WHERE session_id IS DISTINCT FROM user_id"
    every = f"SELECT * FROM ({unnamed}) UNION ALL BY NAME SELECT * FROM ({named})"
    connection = connect(memory_limit="1GB", threads=1, temp_directory=f"{spill}/spill")
    with connection:
        for part, where in (("events", "type <> 'impression'"), ("impressions", "type = 'impression'")):
            query = f"SELECT {columns} FROM ({every}) WHERE {where} ORDER BY event_ts, file, source_row"
            with whole(into / f"{part}.parquet") as place:
                table = connection.sql(query).to_arrow_table()
                pq.write_table(table.cast(SCHEMA), place)


def _whole_item(item: Mapping[str, Any]) -> dict[str, Any]:
    begun = item.get("available_from")
    at = instant(begun) if isinstance(begun, int) and FIRST_US <= begun < LAST_US else None
    return {**item, "title": item.get("title") or item["item_id"], "available_from": at}


def main(
    system: Annotated[str, typer.Argument(help="metarank or gorse.")],
    files: Annotated[list[Path], typer.Argument(help="Its history: JSON lines, or Gorse's CSV files.")],
    into: Annotated[Path, typer.Option(help="Folder of the canonical files.")] = Path("data/migrated"),
) -> int:
    """Make a canonical export of the history that Metarank or Gorse kept."""
    tally = migrate(system, files, into, load("compat", Terms), datetime.now(UTC))
    print(f"{tally.records:,} records: {sum(tally.events.values()):,} events, {len(tally.items):,} items")
    for kind, rows in tally.events.most_common():
        print(f"  {kind:<20} {rows:>12,}")
    for why, rows in tally.dropped.most_common():
        print(f"  passed over: {why:<20} {rows:>12,}")
    if tally.refused:
        print(f"  refused {tally.refused:,}; the first is {tally.first}")
    print(f"next: a section of `shops` in params.yaml with adapter: simulated, source: {into}")
    return 0
