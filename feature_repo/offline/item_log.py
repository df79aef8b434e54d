"""What was said of items in the running shop, and the history of the catalogue that follows from it.

data/logs/items/<first>-<last>.parquet   a row per applied change, from the consumers; empty in a new shop

Of whole rows (the export, and the row as it stood before an item's first live change) the one that was said
first holds from one instant before all data on, each other from its own instant, and so does a live change.
Both sides tell the same words in the order of time, so a past instant knows the price that serving knew then.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.clock import instant, micros
from feature_repo.events import EARLIEST, TIMESTAMP
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.sources import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.features.words import Words, row_of, tell, whole

SCHEMA = pa.schema(
    [
        pa.field(
            "entry", pa.string(), nullable=False
        ),  # of the stream it came by; one that is twice counts once
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("event_ts", TIMESTAMP, nullable=False),  # EARLIEST for a whole row
        pa.field("created_ts", TIMESTAMP, nullable=False),
        pa.field("said", pa.string(), nullable=False),  # JSON: field -> value
    ]
)
FIRST = micros(EARLIEST)


class Statement(NamedTuple):
    """What was said of an item at `ts`, learned at `created` (us)."""

    ts: int
    created: int
    fields: dict[str, Any]


def read(folder: Path) -> dict[str, list[Statement]]:
    """Item -> what was said of it live, each statement once, in the order of the log.

    What is told again, by a client that got no answer or by a replay, was learned when it was told first; of
    words of one instant the last counts.
    """
    tables = [pq.read_table(file, schema=SCHEMA) for file in folder.glob("*.parquet")]
    notes = pa.concat_tables(tables).to_pylist() if tables else []
    found: defaultdict[str, dict[tuple[int, int, str], Statement]] = defaultdict(dict)
    for note in sorted(notes, key=lambda note: tuple(map(int, note["entry"].split("-")))):
        ts, created, said = micros(note["event_ts"]), micros(note["created_ts"]), note["said"]
        content = ts, created if ts == FIRST else 0, said  # whole rows are told apart by when they were said
        before = found[note["item_id"]].pop(content, None)
        learned = before.created if before else created
        found[note["item_id"]][content] = Statement(ts, learned, orjson.loads(said))
    return {item: [*told.values()] for item, told in found.items()}


def dated(told: list[Statement]) -> list[Statement]:
    """Statements in the order of time; of whole rows only the first stands before all data."""
    rows = sorted({one.created: one for one in told if one.ts == FIRST}.values(), key=lambda one: one.created)
    placed = [one._replace(ts=one.created) if at else one for at, one in enumerate(rows)]
    return sorted([*placed, *(one for one in told if one.ts != FIRST)], key=lambda one: one.ts)


def words_at(told: list[Statement], end: int) -> Words:
    """What is known of an item just before `end` (us)."""
    words: Words = {}
    for one in dated(told):
        if one.ts < end:
            tell(words, one.ts, one.fields)
    return words


def lasting(told: list[Statement], since: int) -> list[Statement]:
    """Without what no instant from `since` (us) on tells: said and learned earlier, and said anew before it.

    >>> cheap, dear, gone = (Statement(ts, ts, said) for ts, said in
    ...                      ((1, {"price": 2.0}), (5, {"price": 3.0}), (9, {"deleted": True})))
    >>> [one.ts for one in lasting([cheap, dear, gone], since=7)]
    [5, 9]
    """
    words: Words = {}
    holds: dict[str, Statement] = {}
    for one in dated(told):
        if one.ts < since:
            holds |= {name: one for name, value in one.fields.items() if tell(words, one.ts, {name: value})}
    held = {id(one) for one in holds.values()}
    return [one for one in told if id(one) in held or one.ts == FIRST or max(one.ts, one.created) >= since]


def outdated(folder: Path, files: Iterable[Path], since: int) -> Iterator[tuple[Path, pa.Table, int]]:
    """Files among `files` of the log that hold more than is `lasting`: rows to be left, and how many not."""
    kept = {
        (item, one.ts, orjson.dumps(one.fields))
        for item, told in read(folder).items()
        for one in lasting(told, since)
    }
    for file in files:
        notes = pq.read_table(file, schema=SCHEMA)
        parts = zip(*(notes[name].to_pylist() for name in ("item_id", "event_ts", "said")), strict=True)
        wanted = [(item, micros(at), orjson.dumps(orjson.loads(said))) in kept for item, at, said in parts]
        if not all(wanted):
            yield file, notes.filter(pa.array(wanted)), wanted.count(False)


def of_export(row: Mapping[str, Any]) -> Statement:
    """A row of features.catalogue.catalogue_rows as a statement."""
    return Statement(FIRST, micros(row[CREATED_TIMESTAMP]), whole(row))


def history(told: list[Statement]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(instant, when it was learned, row of `item_catalogue`) wherever something new was said."""
    words: Words = {}
    rows: dict[int, tuple[int, dict[str, Any]]] = {}
    learned = 0
    for one in dated(told):
        learned = max(learned, one.created)
        if tell(words, one.ts, one.fields):
            rows[one.ts] = learned, row_of(words)
    yield from ((ts, *row) for ts, row in rows.items())


def with_changes(export: pa.Table, folder: Path) -> pa.Table:
    """Rows of an export (features.catalogue.catalogue_rows) with the history of those that changed live.

    Items that no export has come last. The rows of an item are in the order of time.
    """
    if not (live := read(folder)):
        return export
    key, keys = ITEM_CATALOGUE.key, export[ITEM_CATALOGUE.key].to_pylist()
    rows = dict(zip(keys, export.to_pylist(), strict=True))
    made = []
    for item in [*rows, *sorted(live.keys() - rows.keys())]:
        if item not in live:
            made.append(rows[item])
            continue
        told = list(live[item])
        if item in rows:
            told.append(of_export(rows[item]))
        made += [
            {key: item, EVENT_TIMESTAMP: instant(ts), CREATED_TIMESTAMP: instant(created), **row}
            for ts, created, row in history(told)
        ]
    return pa.Table.from_pylist(made, schema=export.schema)
