"""`endcap materialize`: the newest offline row of every entity -> Redis, through Feast's layout.

Rows come from the offline store's `pull_latest` and go out by online.rows. Feast's own `materialize`
leaves the same values after 14 s of CPU instead of 4 (merch, 28,000 rows out of 8 million).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from feast import FeatureStore
from feast.infra.offline_stores.offline_utils import get_offline_store_from_config
from redis import Redis

from feature_repo.clock import instant, micros
from feature_repo.errors import DataError, ParamsError
from feature_repo.eventlog.keys import APPLIED, DEAD, DONE, HORIZON, SEEN, StreamParams
from feature_repo.eventlog.open import open_log
from feature_repo.events import EARLIEST, LAST, TIMESTAMP
from feature_repo.features.catalogue import DECLARED, ITEM_CATALOGUE, catalogue_rows
from feature_repo.features.sources import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.features.store import open_store
from feature_repo.features.stored import ITEM_ACTIVITY
from feature_repo.files import chunks
from feature_repo.offline import item_log
from feature_repo.offline.history import FILES
from feature_repo.online import changes
from feature_repo.online.connection import connect
from feature_repo.online.lifetimes import expire
from feature_repo.online.listings import delist, write_said, write_words
from feature_repo.online.rows import OnlineView, write_newer
from feature_repo.params import load, shop
from feature_repo.places import ITEM_LOG, ITEMS, RAW, at, existing, feature_file
from feature_repo.terminal import progress
from pipelines.stream.rewind import Horizon, consumers_at_work, consumers_kept_out, set_horizon

STREAMED = (APPLIED, HORIZON, f"{DONE}*", changes.APPLIED_TS, "endcap:items:*")
LOGGED = (DEAD, f"{SEEN}*")


@dataclass(frozen=True)
class MaterializeParams:
    """`materialize:`"""

    chunk_rows: int


def main(
    as_of: Annotated[
        str | None, typer.Option(help="ISO instant; default: start of the test span, or end of the data")
    ] = None,
    fresh: Annotated[bool, typer.Option(help="first delete all features, then stream anew")] = False,
    forget_log: Annotated[bool, typer.Option(help="with --fresh: delete the log of events, too")] = False,
) -> None:
    """Write what was known just before an instant into Redis, where serving and the stream go on."""
    params = load("materialize", MaterializeParams)
    end = _parsed(as_of) if as_of else default_as_of()
    with connect() as redis:
        again = as_of is not None
        materialize(redis, open_store(), end, params.chunk_rows, fresh, forget_log, again)


def default_as_of() -> datetime:
    """A simulated shop goes on from its last event; any other is recorded and replayed from its test cut."""
    active = shop()
    return end_of_data(at(RAW)) if active.adapter == "simulated" else active.test_from


def end_of_data(raw: Path) -> datetime:
    """The first instant after every recorded event, from the files' statistics."""
    newest = []
    for name in FILES:
        column = pq.read_table(existing(raw / name, "ingest", "event_ts"), columns=["event_ts"])["event_ts"]
        newest += [] if len(column) == 0 else [pc.max(column).as_py()]
    if not newest:
        raise DataError(raw, "there are no events", rows=0, next_step="run `endcap ingest`")
    return max(newest) + timedelta(microseconds=1)


def materialize(
    redis: Redis,
    store: FeatureStore,
    end: datetime,
    chunk: int,
    fresh: bool,
    forget_log: bool = False,
    replayed: bool = False,
) -> dict[str, int]:
    """Rows written per view: the newest of each entity strictly before `end`, none past its age limit.

    Rows that are newer in Redis already, because the stream went on, stay. With `fresh` none stays, and the
    consumers begin at the start of the log with what the rows do not hold. While a consumer is at work, the
    catalogue is written alone, and `fresh` raises EndcapError. Where rows are made anew, what was said of
    items live and is in the offline log is in them, too: of a shop that is `replayed` only what was said
    before `end`.
    """
    params = load("stream", StreamParams)
    views = [OnlineView(declared) for declared in DECLARED]
    catalogue = next(view for view in views if view.declared is ITEM_CATALOGUE)
    anew = fresh or not changes.marked(redis)
    if not anew and consumers_at_work(redis, params.partitions):
        written = _write(redis, {catalogue: said()}, chunk, catalogue)
        print("the catalogue was written; the other rows are those of the consumers at work")
        return written
    with consumers_kept_out(redis, params.partitions):
        tables = {view: latest(store, view, end) for view in views if view is not catalogue}
        if fresh:
            delete_all(redis, views, forget_log)
            newest = (pc.max(table[CREATED_TIMESTAMP].cast(pa.int64())).as_py() for table in tables.values())
            learned = max(us or 0 for us in newest)
            log = open_log(redis, params)
            if forget_log:
                log.forget()
            ends = {p: position for p, position in log.ends().items() if position}
            set_horizon(redis, Horizon(micros(end), learned, ends))
            log.close()
        written = _write(redis, {catalogue: said(end if anew else None)} | tables, chunk, catalogue)
        if anew:
            tell_again(redis, catalogue, micros(end) if replayed else None)
        changes.mark(redis)  # last: rows that were half written are not taken for all of them
        return written


def said(end: datetime | None = None) -> pa.Table:
    """The catalogue of the last import, each row stamped by when it was said, where given before `end`.

    It needs no features of events, so that a new price is one `endcap ingest` away.
    """
    table = catalogue_rows(at(ITEMS)) if at(ITEMS).exists() else _first_rows(_catalogue_file())
    stamps = table[CREATED_TIMESTAMP]
    if end is not None:  # a shop that begins anew in its past knows of no later one
        last = pa.scalar(end - timedelta(microseconds=1), TIMESTAMP)
        stamps = pc.if_else(pc.less(stamps, last), stamps, last)
    return table.set_column(table.column_names.index(EVENT_TIMESTAMP), EVENT_TIMESTAMP, stamps)


def _first_rows(file: Path) -> pa.Table:
    """The rows of a catalogue with its history that hold from the beginning on."""
    table = pq.read_table(file)
    return table.filter(pc.equal(table[EVENT_TIMESTAMP], pa.scalar(EARLIEST, TIMESTAMP)))


def tell_again(redis: Redis, catalogue: OnlineView, end: int | None) -> None:
    """The rows of items that changed live, by the offline log: as of `end` (us), else as they are now."""
    export = catalogue_rows(at(ITEMS)) if at(ITEMS).exists() else _first_rows(_catalogue_file())
    rows = {row[catalogue.declared.key]: row for row in export.to_pylist()}
    live = item_log.read(at(ITEM_LOG))
    for items in chunks(live, 1_000):
        with redis.pipeline(transaction=True) as pipe:
            for item in items:
                told = live[item] + ([item_log.of_export(rows[item])] if item in rows else [])
                if words := item_log.words_at(told, end or micros(LAST)):
                    write_words(pipe, catalogue, item, words)
            pipe.execute()


def _catalogue_file() -> Path:
    return existing(feature_file(ITEM_CATALOGUE.name), "features")


def _write(
    redis: Redis, tables: Mapping[OnlineView, pa.Table], chunk: int, catalogue: OnlineView
) -> dict[str, int]:
    """The catalogue first: only then is it known which items are of the shop."""
    written, newest, unlisted = {}, 0, load("stream", StreamParams).unlisted_hours
    for view, table in tables.items():
        declared, count = view.declared, 0
        with progress(desc=declared.name, total=len(table), unit=" rows", unit_scale=True) as bar:
            for rows in _chunks(table, view, chunk):
                entities = (write_said if view is catalogue else write_newer)(redis, view, rows)
                keys = [view.key(entity) for entity in entities]
                expire(redis, declared, keys, unlisted, catalogue.fields[-1])
                if declared is ITEM_ACTIVITY:
                    changes.announce(redis, entities)
                count += len(entities)
                if view is not catalogue:  # what a catalogue says moves no shopper's clock
                    newest = max(newest, *(ts for _, ts, _ in rows))
                bar.update(len(rows))
        if view is catalogue and len(table):
            at_us = pc.max(table[EVENT_TIMESTAMP].cast(pa.int64())).as_py()
            count += len(delist(redis, view, table[declared.key].to_pylist(), at_us))
        written[declared.name] = count
    redis.incr(changes.CATALOGUE)
    changes.raise_applied_ts(redis, newest)
    return written


def latest(store: FeatureStore, view: OnlineView, end: datetime) -> pa.Table:
    """The newest row of each entity strictly before `end`: key, columns and both timestamps."""
    declared = view.declared
    age = timedelta(days=declared.max_age_days)
    columns = (declared.key, EVENT_TIMESTAMP, CREATED_TIMESTAMP, *(c.name for c in declared.columns))
    existing(feature_file(declared.name), "features", *columns)
    source = store.get_feature_view(declared.name).batch_source
    assert source is not None  # every view of ours has one
    job = get_offline_store_from_config(store.config.offline_store).pull_latest_from_table_or_query(
        config=store.config,
        data_source=source,
        join_key_columns=[declared.key],
        feature_name_columns=[c.name for c in declared.columns],
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED_TIMESTAMP,
        start_date=end - age if age else EARLIEST,
        end_date=end - timedelta(microseconds=1),
    )
    return job.to_arrow()


def delete_all(redis: Redis, views: list[OnlineView], forget_log: bool) -> None:
    """Delete every feature row of the project, their mark, and what consumers know; on request the log."""
    for pattern in {view.pattern() for view in views} | {*STREAMED, *(LOGGED if forget_log else ())}:
        for keys in chunks(redis.scan_iter(pattern, count=1_000), 1_000):
            redis.unlink(*keys)


def _chunks(table: pa.Table, view: OnlineView, size: int) -> Iterator[list[tuple[str, int, dict[str, Any]]]]:
    names = [c.name for c in view.declared.columns]
    for part in table.to_batches(max_chunksize=size):
        keys = part.column(view.declared.key).to_pylist()
        stamps = part.column(EVENT_TIMESTAMP).cast(pa.int64()).to_pylist()
        values = zip(*(part.column(name).to_pylist() for name in names), strict=True)
        rows = (dict(zip(names, row, strict=True)) for row in values)
        yield list(zip(keys, stamps, rows, strict=True))


def _parsed(text: str) -> datetime:
    try:
        return instant(micros(text))
    except (ValueError, OverflowError):
        raise ParamsError(f"--as-of: {text!r} is not an instant; allowed: 2016-10-17T00:00:00Z") from None
