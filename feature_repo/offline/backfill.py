"""The stored rows of a fold, slice by slice, in worker processes: the same tables whatever their number.

A slice is a range of keys with some `slice_events` events, so a process holds a small part of the history,
and the slices one after the other are the rows in the order of their keys.
"""

import gc
import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from feature_repo.features.adoption import adopt
from feature_repo.features.stored import FOLDS, ITEM_ACTIVITY
from feature_repo.folds.fold import Fold
from feature_repo.offline.history import backfill, of_fold, raw_events, schema, sorted_facts, tables
from feature_repo.offline.item_counts import has_closed_form, item_rows


@dataclass(frozen=True)
class Limits:
    """What the backfill may use: `workers` processes, each with `duckdb_memory`."""

    workers: int
    slice_events: int
    chunk_rows: int
    duckdb_memory: str


@dataclass(frozen=True)
class Slice:
    """The keys above `low`, up to `high`, of the fold with this name; None is open."""

    fold: str
    number: int  # of the fold's slices, from 0
    low: str | None
    high: str | None


def rows(raw: Path, limits: Limits) -> Iterator[tuple[Fold, Iterator[pa.Table]]]:
    """Every fold of FOLDS with its tables, sorted by (key, event_timestamp); to be used up in this order.

    `raw` holds events.parquet and impressions.parquet. Raises DataError when one is missing.
    """
    with TemporaryDirectory(prefix="endcap-backfill-") as folder:
        adopted = Path(folder) / "adopted.parquet"
        with raw_events(raw, limits.duckdb_memory) as events:
            adopt(events, limits.chunk_rows)
            events.execute(f"COPY adopted TO '{adopted}'")
            wanted = {fold: slices(events, fold, limits.slice_events) for fold in FOLDS}
        jobs = [(raw, adopted, part, limits) for parts in wanted.values() for part in parts]
        done = _run(jobs, limits.workers)
        for fold, parts in wanted.items():
            yield fold, (table for _ in parts for table in _read(next(done)))


def slices(events: duckdb.DuckDBPyConnection, fold: Fold, size: int) -> list[Slice]:
    """Ranges of keys with some `size` events each; together they hold every key."""
    found = events.execute(
        f"""
        WITH counts AS (
            SELECT {fold.key} AS key, count(*) AS n FROM events WHERE {of_fold(fold)} GROUP BY key)
        SELECT max(key) FROM (SELECT key, (sum(n) OVER (ORDER BY key) - 1) // {size} AS slice FROM counts)
        GROUP BY slice ORDER BY slice"""
    ).fetchall()
    bounds = [None, *(high for (high,) in found[:-1]), None]
    return [Slice(fold.name, number, *ends) for number, ends in enumerate(pairwise(bounds))]


def _run(jobs: Sequence[tuple[Path, Path, Slice, Limits]], workers: int) -> Iterator[Path]:
    """Files of the slices, in order; at most one more than `workers` is under way or waits to be read."""
    if workers == 1 or len(jobs) == len(FOLDS):  # one slice each is too little to be worth a process
        yield from (make(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # DuckDB's threads do not survive a fork
    with ProcessPoolExecutor(workers, context) as pool:
        waiting: deque[Future[Path]] = deque()
        for job in jobs:
            waiting.append(pool.submit(make, *job))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def make(raw: Path, adopted: Path, part: Slice, limits: Limits) -> Path:
    """Compute one slice and leave its tables in an arrow file beside `adopted`."""
    fold = next(fold for fold in FOLDS if fold.name == part.fold)
    path = adopted.with_name(f"{part.fold}-{part.number}.arrow")
    shape = schema(fold.key, fold.columns)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with uncollected(), raw_events(raw, limits.duckdb_memory) as events:
        _narrow(events, adopted, fold, part)
        with pa.ipc.new_file(path, shape, options=options) as file:
            for table in of_slice(events, fold, limits.chunk_rows):
                file.write_table(table)
    return path


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector: states and rows hold no cycles, and it takes a third of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _narrow(events: duckdb.DuckDBPyConnection, adopted: Path, fold: Fold, part: Slice) -> None:
    """Let the tables `events` and `adopted` hold the slice alone."""
    bounds = [f"{fold.key} > {_text(part.low)}"] if part.low is not None else []
    bounds += [f"{fold.key} <= {_text(part.high)}"] if part.high is not None else []
    within = " AND ".join(bounds) or "true"
    events.execute("ALTER VIEW events RENAME TO all_events")
    events.execute(f"CREATE VIEW events AS SELECT * FROM all_events WHERE {within}")
    events.execute(f"CREATE VIEW adopted AS SELECT * FROM read_parquet('{adopted}') WHERE {within}")


def of_slice(events: duckdb.DuckDBPyConnection, fold: Fold, chunk: int) -> Iterator[pa.Table]:
    """The rows of the keys that the tables `events` and, of shoppers, `adopted` hold, whoever filled them."""
    if fold is ITEM_ACTIVITY and has_closed_form(fold):
        return item_rows(events, chunk)
    return tables(fold, backfill(fold, sorted_facts(events, fold, chunk)), chunk)


def _read(path: Path) -> Iterator[pa.Table]:
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for i in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(i)])
    path.unlink()


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
