"""Backfill of 10 million events by `endcap features`: seconds, memory, and the plain python folds beside it.

    python benchmarks/backfill.py --events 10000000

Writes a deterministic shop into a folder of its own (ENDCAP_HOME) and measures the job in a child process.
The plain folds run event by event over a smaller shop of the same kind; their time is extrapolated by events.
On that shop the rows of the job must equal those of the folds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from budgets import tell
from child import Cost, measured
from rich.console import Console
from rich.table import Table

from feature_repo.events import ITEM_SCHEMA, SCHEMA
from feature_repo.features.adoption import adopt
from feature_repo.features.stored import FOLDS
from feature_repo.folds.fold import Fold
from feature_repo.offline.history import backfill, raw_events, sorted_facts, tables

ROOT = Path(__file__).resolve().parents[1]
BUDGET_EVENTS, BUDGET_S, BUDGET_GB = 10_000_000, 600, 8.0
SAMPLE = 200_000
ITEMS, EVENTS_PER_SESSION, DAYS = 12_000, 77, 90
SESSION = """
    SELECT s, TIMESTAMPTZ '2026-01-01 00:00:00+00'
               + to_microseconds(({0} % ({1} * 86400000000))::BIGINT) AS start,
           CASE WHEN {2} % 100 < 54 THEN 'user ' || {3} % ({4} // 4 + 1) END AS shopper,
           CASE WHEN {2} % 100 < 6 THEN 60 ELSE 0 END AS login_s,  -- known only after a minute
           {5} % 100 < 93 AS consent
    FROM range({4}) t(s)"""
PAGES = """
    SELECT s, start, shopper, login_s, consent,
           40000000 * p + {0} % 20000000 AS after_us, 'impression' AS type,
           'page ' || s || ' ' || p AS request, position
    FROM (SELECT *, unnest(range(1 + ({1} % 5)::BIGINT)) AS p FROM sessions),
         LATERAL (SELECT unnest(range(1, 13 + ({2} % 13)::BIGINT)) AS position)"""
REST = """
    SELECT s, start, shopper, login_s, consent, 3000000 + {0} % 240000000 AS after_us,
           CASE WHEN kind < 15 THEN 'click' WHEN kind < 80 THEN 'product_viewed'
                WHEN kind < 92 THEN 'add_to_cart' WHEN kind < 96 THEN 'remove_from_cart'
                ELSE 'purchase_completed' END AS type,
           NULL AS request, NULL AS position
    FROM (SELECT *, {1} % 100 AS kind FROM
          (SELECT *, unnest(range(8 + ({2} % 31)::BIGINT)) AS e FROM sessions))"""


def number(*parts: object) -> str:
    """SQL of a whole number that depends on `parts` alone: the same shop on every machine."""
    return f"(hash({', '.join(map(str, parts))}) >> 8)"


def write_shop(home: Path, events: int) -> int:
    """data/raw with some `events` events: 70 % impressions, in pages of 12 to 24 at one instant."""
    raw = home / "data" / "raw"
    raw.mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", home / "params.yaml")
    sessions = max(events // EVENTS_PER_SESSION, 1)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    drawn = [number("s", k) for k in range(4)]
    connection.execute(
        f"CREATE VIEW sessions AS {SESSION.format(drawn[0], DAYS, *drawn[1:3], sessions, drawn[3])}"
    )
    of_page, of_event = (number("s", "p", k) for k in (10, 11)), (number("s", "e", k) for k in (20, 21))
    parts = {
        "impressions": PAGES.format(next(of_page), number("s", 12), next(of_page)),
        "events": REST.format(next(of_event), next(of_event), number("s", 22)),
    }
    for name, part in parts.items():
        chance = f"{number('s', 'after_us', 'position', 30)} % 100000 / 100000.0"
        values = {
            "position": "position",
            "event_id": f"'{name[0]}' || row_number() OVER (ORDER BY s, after_us, position)",
            "event_ts": "start + to_microseconds(after_us::BIGINT)",
            "created_ts": "start + to_microseconds(after_us::BIGINT + 2000000)",
            "type": "type",
            "user_id": "CASE WHEN after_us >= login_s * 1000000 THEN shopper END",
            "session_id": "'session ' || s",
            "item_id": f"'item ' || floor({ITEMS} * pow({chance}, 2))::INT",
            "request_id": "request",
            "consent": "consent",
        }
        columns = ", ".join(f"{values.get(field.name, 'NULL')} AS {field.name}" for field in SCHEMA)
        table = connection.sql(f"SELECT {columns} FROM ({part}) ORDER BY event_ts").to_arrow_table()
        pq.write_table(table.cast(SCHEMA), raw / f"{name}.parquet")
    names, unknown = [f"item {i}" for i in range(ITEMS)], [None] * ITEMS
    arrays = [pa.array(names if f.name in ("item_id", "title") else unknown, f.type) for f in ITEM_SCHEMA]
    pq.write_table(pa.Table.from_arrays(arrays, schema=ITEM_SCHEMA), raw / "items.parquet")
    return sum(pq.read_metadata(raw / f"{name}.parquet").num_rows for name in parts)


def job(home: Path) -> Cost:
    """`endcap features` on the shop in `home`."""
    command = [sys.executable, "-m", "pipelines", "features"]
    return measured(command, {**os.environ, "ENDCAP_HOME": str(home)})


def stored(home: Path, fold: Fold) -> Path:
    return home / "data" / "features" / f"{fold.name}.parquet"


def plain(home: Path) -> dict[str, pa.Table]:
    """Every fold, one python step per event."""
    found = {}
    with raw_events(home / "data" / "raw", "4GB") as events:
        adopt(events, 20_000)
        for fold in FOLDS:
            found[fold.name] = pa.concat_tables(
                tables(fold, backfill(fold, sorted_facts(events, fold, 20_000)), 20_000)
            )
    return found


def differing(rows: pa.Table, path: Path) -> int:
    """Rows that are not the stored ones; sums may differ in the last digits."""
    other = pq.read_table(path)
    if len(rows) != len(other) or rows.column_names != other.column_names:
        return max(len(rows), len(other))
    wrong = np.zeros(len(rows), bool)
    for name in rows.column_names:
        if pa.types.is_floating(rows.schema.field(name).type):
            wrong |= ~np.isclose(rows[name].to_numpy(), other[name].to_numpy(), rtol=1e-9, atol=1e-12)
        elif not rows[name].equals(other[name]):
            wrong |= [a != b for a, b in zip(rows[name].to_pylist(), other[name].to_pylist(), strict=True)]
    return int(wrong.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=BUDGET_EVENTS, help="events of the measured shop")
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory(prefix="endcap-backfill-") as folder:
        large, small = Path(folder) / "large", Path(folder) / "small"
        count, sample = write_shop(large, events), write_shop(small, min(SAMPLE, events))
        cost = job(large)
        rows = {fold.name: pq.read_metadata(stored(large, fold)).num_rows for fold in FOLDS}
        job(small)
        start = time.perf_counter()
        by_hand = plain(small)
        seconds = time.perf_counter() - start
        wrong = sum(differing(by_hand[fold.name], stored(small, fold)) for fold in FOLDS)
    table = Table(title="backfill: every stored row of every view")
    for title in ("", "events", "rows", "seconds", "CPU s", "events/s", "peak GB"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)

    def line(what: str, events: int, rows: int, seconds: float, *rest: str) -> None:
        table.add_row(what, f"{events:,}", f"{rows:,}", f"{seconds:.0f}", *rest)

    figures = (f"{cost.cpu_seconds:.0f}", f"{count / cost.seconds:,.0f}", f"{cost.peak_gb:.1f}")
    line("endcap features", count, sum(rows.values()), cost.seconds, *figures)
    line("plain folds", sample, sum(map(len, by_hand.values())), seconds, "", f"{sample / seconds:,.0f}")
    line("  extrapolated", count, sum(rows.values()), seconds * count / sample)
    table.add_row("budget, 2 cores", f"{BUDGET_EVENTS:,}", "", f"< {BUDGET_S}", "", "", f"< {BUDGET_GB:.0f}")
    Console().print(table)
    tell(backfill_s=cost.seconds)
    print("rows: " + ", ".join(f"{name} {n:,}" for name, n in rows.items()))
    print(f"rows of the sample that differ from the plain folds: {wrong}")


if __name__ == "__main__":
    main()
