"""The stored rows of a fold on Spark: the slices of backfill.py, cut by Spark and run in its Python workers.

    raw events ─► by session: adopt() ─► what a login brings ──┐
         └──────────────────────────────► by the fold's key ───┴─► of_slice() ─► <view>.parquet/part-00000...

A partition holds some `slice_events` events of whole keys. A worker sorts and folds them as a process of
the embedded backfill does, by the same functions and in DuckDB, which spills: `applyInPandas` would hold the
events of the busiest item in one frame, and call Python for every key. A part is written where it is made,
so that no row comes by the driver. Which partition a key is in depends on it and the number of partitions.
The project's folder is at one path on every machine, and this package is installed there (docs/spark.md).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import ParamsError
from feature_repo.events import SCHEMA, UNCOUNTED
from feature_repo.features.adoption import adopt
from feature_repo.features.stored import FOLDS, USER_HISTORY
from feature_repo.files import whole
from feature_repo.folds.fold import Event
from feature_repo.offline.backfill import Limits, of_slice, uncollected
from feature_repo.offline.duck import connect
from feature_repo.offline.history import FILES, of_fold, schema, write
from feature_repo.params import load
from feature_repo.places import existing, feature_file
from feature_repo.terminal import progress

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Batches = Iterator[pa.RecordBatch]
NUMBERS = ("known_at", "created", "place")  # of the table `adopted`, beside the event
TYPES = dict.fromkeys((*NUMBERS, "ts"), "long") | dict.fromkeys(("consent", "counted"), "boolean")
TYPES["position"] = "int"  # any other column is a string
EMBEDDED = "or set `offline: embedded` in params.yaml"
FIXED: dict[str, Any] = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.catalogImplementation": "in-memory",  # no Hive, no derby.log
    "spark.sql.warehouse.dir": f"{gettempdir()}/endcap-spark-warehouse",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
LOCAL: dict[str, Any] = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}


@dataclass(frozen=True)
class SparkParams:
    """Section `spark` of params.yaml."""

    master: str
    driver_memory: str


def session() -> SparkSession:
    """This process's session: that of spark-submit, else one by section `spark`, on the loopback if local.

    Raises ParamsError where pyspark or Java is missing.
    """
    try:
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ImportError:
        step = "run `pip install -r requirements-spark.txt`"
        raise ParamsError(
            f"offline: 'spark' needs the package pyspark, which is missing; {step}, {EMBEDDED}"
        ) from None
    builder = SparkSession.builder.appName("endcap").config(map=FIXED)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # not under spark-submit
        params = load("spark", SparkParams)
        builder = builder.master(params.master).config("spark.driver.memory", params.driver_memory)
        builder = builder.config(map=LOCAL if params.master.startswith("local") else {})
    try:
        return builder.getOrCreate()
    except PySparkRuntimeError as error:
        step = f"install Java 17 or newer (openjdk-17-jre-headless) or set JAVA_HOME, {EMBEDDED}"
        raise ParamsError(f"offline: 'spark' found no Java that starts it ({error}); {step}") from None


def raw_frame(raw: Path) -> DataFrame:
    """The view `events` of history.raw_events as a data frame. Raises DataError when a file is missing."""
    spark = session()
    rest = [name for name in Event._fields if name not in ("ts", "user_id", "counted")]
    columns = ["event_id", "unix_micros(event_ts) AS ts", "unix_micros(created_ts) AS created"]
    columns += ["CASE WHEN consent THEN user_id END AS user_id", *rest]
    frames = []
    for name in FILES:
        file = existing(raw / name, "ingest", *SCHEMA.names)
        counted = f"{UNCOUNTED} IS NULL" if UNCOUNTED in pq.read_schema(file).names else "true"
        frames.append(spark.read.parquet(str(file)).selectExpr(*columns, f"{counted} AS counted"))
    return frames[0].unionByName(frames[1])


def write_rows(raw: Path, limits: Limits, row_group: int) -> None:
    """data/features/<view>.parquet of every fold of FOLDS: a folder of parts, whole or as it was before."""
    events = raw_frame(raw)
    for fold in FOLDS:
        found, path = events.where(of_fold(fold)), feature_file(fold.name)
        parts = _parts(found, limits)
        if fold is USER_HISTORY:
            found = found.unionByName(_adopted(events, limits), allowMissingColumns=True)
        with progress(desc=fold.name, unit=" rows", unit_scale=True) as bar, whole(path) as draft:
            draft.mkdir()
            todo = fold.name, draft, limits, row_group
            by_key = found.repartition(parts, fold.key)
            done = by_key.mapInArrow(lambda batches, todo=todo: fold_part(batches, *todo), "rows long")
            bar.update(sum(rows for (rows,) in done.collect()))
            if not any(draft.iterdir()):
                write(draft / "part-00000.parquet", schema(fold.key, fold.columns), (), row_group)
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)  # of the embedded engine


def _parts(found: DataFrame, limits: Limits) -> int:
    return max(1, -(-found.count() // limits.slice_events))


def _adopted(events: DataFrame, limits: Limits) -> DataFrame:
    """The table of features/adoption.py, visit by visit; `place` orders what one event brings."""
    names = ("event_id", *NUMBERS, *Event._fields)
    shape = ", ".join(f"{name} {TYPES.get(name, 'string')}" for name in names)
    by_visit = events.repartition(_parts(events, limits), "session_id")
    return by_visit.mapInArrow(lambda batches: adopt_part(batches, limits), shape)


# Functions of the module, which workers import: what a lambda refers to is a copy there, and folds are told
# apart by identity.


def adopt_part(batches: Batches, limits: Limits) -> Batches:
    """Rows of the table `adopted` for the visits of a partition."""
    with _held(batches, limits) as connection:
        if connection:
            connection.execute("CREATE VIEW events AS FROM part")
            adopt(connection, limits.chunk_rows)
            yield from connection.table("adopted").to_arrow_reader(limits.chunk_rows)


def fold_part(batches: Batches, name: str, folder: Path, limits: Limits, row_group: int) -> Batches:
    """Write the rows of fold `name` for a partition into `folder`; how many they are."""
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None  # only a task of Spark calls this
    fold = next(fold for fold in FOLDS if fold.name == name)
    given = "known_at IS NOT NULL" if fold is USER_HISTORY else "false"
    with uncollected(), _held(batches, limits) as connection:
        if connection:
            connection.execute(f"CREATE VIEW events AS FROM part WHERE NOT ({given})")
            connection.execute(f"CREATE VIEW adopted AS FROM part WHERE {given}")
            path = folder / f"part-{context.partitionId():05}.parquet"
            tables = of_slice(connection, fold, limits.chunk_rows)
            rows = write(path, schema(fold.key, fold.columns), tables, row_group)
            yield pa.RecordBatch.from_pydict({"rows": [rows]})


@contextmanager
def _held(batches: Batches, limits: Limits) -> Iterator[duckdb.DuckDBPyConnection | None]:
    """A connection of one thread whose table `part` holds a partition; None for one without rows."""
    if (first := next(batches, None)) is None:
        yield None
        return
    reader = pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))
    with connect(memory_limit=limits.duckdb_memory, threads=1) as connection:
        connection.from_arrow(reader).create("part")
        yield connection
