"""Training sets at past instants, 34 features: the ASOF store beside Feast's own stores on the same files.

    python benchmarks/offline.py                    100,000 rows by ASOF and by DuckDB, 1 million by ASOF
    python benchmarks/offline.py --stock-million    1 million by DuckDB too: 90 s and 18 GB
    python benchmarks/offline.py --file             10,000 rows by the file (dask) store too

Three views: 20,000 shoppers and 12,000 items with 100 rows each over 60 days (14 and 12 features, one row in
ten learned late, age limit 30 days) and the catalogue, one row an item (8 features). Each run is a process of
its own; the seconds are those of the join, until the answer is an arrow table; imports do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
from budgets import tell
from child import Cost, measured
from rich.console import Console
from rich.table import Table

ASOF = "feature_repo.offline.asof_store.AsofOfflineStore"
STORES = {"asof": ASOF, "duckdb": "duckdb", "file": "file"}
VIEWS = {"shopper": (20_000, 100, 14), "item": (12_000, 100, 12), "catalogue": (12_000, 1, 8)}
KEYS = {"shopper": "user_id", "item": "item_id", "catalogue": "item_id"}
START, DAYS = "TIMESTAMPTZ '2026-01-01 00:00:00+00'", 60
BUDGET_S, BUDGET_GB, BUDGET_ROWS = 5.0, 3.0, 1_000_000


@dataclass(frozen=True)
class Run:
    store: str
    rows: int
    seconds: float
    cost: Cost
    answers: Path


def number(*parts: object) -> str:
    """SQL of a whole number that depends on `parts` alone: the same rows on every machine."""
    return f"(hash({', '.join(map(str, parts))}) >> 8)"


def write_rows(folder: Path) -> None:
    """One parquet file per view, and the questions."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for view, (keys, each, width) in VIEWS.items():
        moment = f"{START} + to_microseconds(({number('i', 77)} % ({DAYS} * 86400000000))::BIGINT)"
        late = f"to_seconds(CASE WHEN {number('i', 78)} % 10 = 0 THEN {number('i', 79)} % 86400 ELSE 2 END)"
        features = ", ".join(f"({number('i', c)} % 100000) / 7.0 AS {view}_{c}" for c in range(width))
        connection.execute(
            f"COPY (SELECT '{KEYS[view]} ' || i % {keys} AS {KEYS[view]}, moment AS event_timestamp,"
            f" moment + late AS created_timestamp, {features} FROM (SELECT i, {late} AS late,"
            f" {moment if each > 1 else START} AS moment FROM range({keys * each}) t(i))"
            f" ORDER BY {KEYS[view]}, moment) TO '{folder / view}.parquet'"
        )
    asked = ", ".join(
        f"'{key} ' || {number('i', key_number)} % {keys} AS {key}"
        for key_number, (key, keys) in enumerate({"user_id": 21_000, "item_id": 12_000}.items(), 90)
    )
    moment = f"{START} + to_microseconds(({number('i', 99)} % ({DAYS} * 86400000000))::BIGINT)"
    connection.execute(
        f"COPY (SELECT {asked}, {moment} AS event_timestamp, i AS question FROM range({BUDGET_ROWS}) t(i))"
        f" TO '{folder}/questions.parquet'"
    )


def join(folder: Path, store: str, rows: int) -> None:
    """In the child: the training set of the first `rows` questions; prints its seconds as JSON."""
    import pandas as pd
    import pyarrow.parquet as pq
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, String

    entities = {
        key: Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in set(KEYS.values())
    }
    views = [
        FeatureView(
            name=view,
            entities=[entities[KEYS[view]]],
            ttl=timedelta(days=0 if view == "catalogue" else 30),
            schema=[
                Field(name=KEYS[view], dtype=String),
                *(Field(name=f"{view}_{c}", dtype=Float64) for c in range(width)),
            ],
            source=FileSource(
                name=view,
                path=str(folder / f"{view}.parquet"),
                timestamp_field="event_timestamp",
                created_timestamp_column="created_timestamp",
            ),
        )
        for view, (_, _, width) in VIEWS.items()
    ]
    config: dict[str, Any] = {
        "project": "bench",
        "provider": "local",
        "registry": str(folder / f"{store}-{rows}.db"),
        "offline_store": {"type": STORES[store]},
        "online_store": None,
        "entity_key_serialization_version": 3,
    }
    feast = FeatureStore(config=RepoConfig(**config))
    feast.apply([*entities.values(), *views])
    questions = pd.read_parquet(folder / "questions.parquet").iloc[:rows]
    features = [f"{view}:{view}_{c}" for view, (_, _, width) in VIEWS.items() for c in range(width)]
    start = time.perf_counter()
    table = feast.get_historical_features(questions, features).to_arrow()
    seconds = time.perf_counter() - start
    pq.write_table(table, folder / f"answers-{store}-{rows}.parquet")
    print(json.dumps({"seconds": seconds}))


def run(folder: Path, store: str, rows: int) -> Run:
    cost = measured([sys.executable, __file__, "--child", folder, store, str(rows)], os.environ)
    seconds = json.loads(cost.output.splitlines()[-1])["seconds"]
    return Run(store, rows, seconds, cost, folder / f"answers-{store}-{rows}.parquet")


def differing(one: Run, other: Run) -> tuple[int, int]:
    """Questions whose 34 answers differ, and questions that `other` left out."""
    names = [f"{view}_{c}" for view, (_, _, width) in VIEWS.items() for c in range(width)]
    differ = " OR ".join(f"a.{name} IS DISTINCT FROM b.{name}" for name in names)
    query = f"""
        SELECT count(*) FILTER (b.question IS NOT NULL AND ({differ})), count(*) FILTER (b.question IS NULL)
        FROM '{one.answers}' AS a LEFT JOIN '{other.answers}' AS b USING (question)"""
    return duckdb.connect().execute(query).fetchall()[0]


def report(runs: list[Run]) -> Table:
    table = Table(title=f"training set, point in time, {sum(v[2] for v in VIEWS.values())} features")
    for title in ("store", "rows", "seconds", "x asof", "peak GB", "answers that differ", "left out"):
        table.add_column(title, justify="left" if title == "store" else "right")
    asof = {r.rows: r for r in runs if r.store == "asof"}
    for one in sorted(runs, key=lambda r: (r.rows, r.store)):
        ours = asof[one.rows]
        cells = ["-", "-", "-"]
        if one is not ours:
            cells = [f"{one.seconds / ours.seconds:.1f}", *(str(n) for n in differing(ours, one))]
        seconds, peak = f"{one.seconds:.2f}", f"{one.cost.peak_gb:.1f}"
        table.add_row(one.store, f"{one.rows:,}", seconds, cells[0], peak, *cells[1:])
    table.add_row("budget", f"{BUDGET_ROWS:,}", f"< {BUDGET_S:.0f}", "", f"< {BUDGET_GB:.0f}", "0", "0")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stock-million", action="store_true", help="1 million rows by DuckDB too: 18 GB")
    parser.add_argument("--file", action="store_true", help="10,000 rows by the file store too")
    parser.add_argument("--child", nargs=3, metavar=("FOLDER", "STORE", "ROWS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        join(Path(args.child[0]), args.child[1], int(args.child[2]))
        return
    wanted = [("asof", 100_000), ("duckdb", 100_000), ("asof", BUDGET_ROWS)]
    wanted += [("duckdb", BUDGET_ROWS)] if args.stock_million else []
    wanted += [("asof", 10_000), ("file", 10_000)] if args.file else []
    with tempfile.TemporaryDirectory(prefix="endcap-offline-") as name:
        write_rows(Path(name))
        runs = [run(Path(name), store, rows) for store, rows in wanted]
        Console().print(report(runs))
        most = next(one for one in runs if one.store == "asof" and one.rows == BUDGET_ROWS)
        tell(offline_s=most.seconds, offline_gb=most.cost.peak_gb)


if __name__ == "__main__":
    main()
