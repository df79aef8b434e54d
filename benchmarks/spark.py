"""Both engines of history beside each other: seconds, memory, and whether all rows and answers are equal.

    python benchmarks/spark.py --events 10000000

Makes a deterministic shop (that of benchmarks/backfill.py) in a temporary folder, computes its features by
`endcap features` with `offline: embedded` and with `offline: spark`, and asks both for the visitors' rows at
some of its moments. Each in a process of its own, all its children counted. What more cores would take is
computed from that, not measured.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pandas as pd
import yaml
from backfill import write_shop
from child import Cost, measured
from rich.console import Console
from rich.table import Table

from feature_repo.features.stored import FOLDS
from feature_repo.offline.timeline import historical

ENGINES = ("embedded", "spark")
ASKED = 20_000
START_S = 15.0  # of a JVM, its session and the first Python workers, which no further core shortens


def homes(folder: Path, events: int, cores: int, memory: str) -> tuple[dict[str, Path], int]:
    """A project folder per engine over the same raw events, and how many these are."""
    found = {engine: folder / engine for engine in ENGINES}
    count = write_shop(found["embedded"], events)
    (found["spark"] / "data").mkdir(parents=True)
    (found["spark"] / "data" / "raw").symlink_to(found["embedded"] / "data" / "raw")
    params = yaml.safe_load((found["embedded"] / "params.yaml").read_text())
    params["spark"] |= {"master": f"local[{cores}]", "driver_memory": memory}
    params["features"]["workers"] = cores
    for engine, home in found.items():
        (home / "params.yaml").write_text(yaml.safe_dump(params | {"offline": engine}))
    return found, count


def run(home: Path, *words: str) -> Cost:
    """A command in `home`; Spark's scratch space lies there, too, and goes with it."""
    scratch = home / "scratch"
    scratch.mkdir(exist_ok=True)
    env = {**os.environ, "ENDCAP_HOME": str(home), "SPARK_LOCAL_DIRS": str(scratch), "TMPDIR": str(scratch)}
    return measured([sys.executable, *words], env)


def checksum(home: Path, view: str) -> tuple[int, int]:
    """Rows of a view and the sum of their hashes: the same for the same rows in whatever order."""
    path = home / "data" / "features" / f"{view}.parquet"
    files = f"{path}/*.parquet" if path.is_dir() else path
    with duckdb.connect(config={"memory_limit": "4GB"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        query = f"SELECT count(*), sum(hash(rows)::HUGEINT) FROM '{files}' AS rows"
        return connection.sql(query).fetchall()[0]


def ask(home: Path) -> None:
    """Print the seconds of `historical` at ASKED moments of events and a digest of its answers."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        drawn = connection.sql(
            f"SELECT user_id, session_id, event_ts AS event_timestamp FROM '{home}/data/raw/events.parquet'"
            f" ORDER BY hash(event_id), event_id LIMIT {ASKED}"
        ).df()
    drawn["event_timestamp"] = drawn["event_timestamp"].astype("datetime64[us, UTC]")
    drawn = drawn.astype({"user_id": object, "session_id": object})
    start = time.perf_counter()
    answers: pd.DataFrame = historical(drawn.where(drawn.notna(), None), "visitor")
    seconds = time.perf_counter() - start
    rows = [answers[name].tolist() for name in ("user_history", "session_context")]
    print(f"{seconds:.1f} {hashlib.sha256(repr(rows).encode()).hexdigest()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="of both engines")
    parser.add_argument("--memory", default="2g", help="of Spark's JVM")
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.ask:
        ask(told.ask)
        return
    table = Table(title=f"history by both engines, {told.cores} cores")
    for title in ("", "events", "seconds", "events/s", "peak GB", f"{ASKED:,} answers, s", "peak GB"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    costs, digests, sums = {}, {}, {}
    with tempfile.TemporaryDirectory(prefix="endcap-spark-") as folder:
        found, count = homes(Path(folder), told.events, told.cores, told.memory)
        for engine, home in found.items():
            costs[engine] = cost = run(home, "-m", "pipelines", "features")
            asked = run(home, __file__, "--ask", str(home))
            seconds, digests[engine] = asked.output.split()[-2:]
            sums[engine] = {fold.name: checksum(home, fold.name) for fold in FOLDS}
            figures = (f"{cost.seconds:.0f}", f"{count / cost.seconds:,.0f}", f"{cost.peak_gb:.1f}")
            table.add_row(engine, f"{count:,}", *figures, seconds, f"{asked.peak_gb:.1f}")
    Console().print(table)
    for name, (rows, _) in sums["embedded"].items():
        same = "equal" if sums["embedded"][name] == sums["spark"][name] else "DIFFERENT"
        print(f"{name}: {rows:,} rows, {same}")
    print(f"answers: {'equal' if digests['embedded'] == digests['spark'] else 'DIFFERENT'}")
    each = max(costs["spark"].seconds - START_S, 1.0) * told.cores / count  # core seconds of an event
    for events, cores in ((100_000_000, told.cores), (100_000_000, 16), (100_000_000, 64)):
        minutes = (START_S + each * events / cores) / 60
        print(
            f"estimate, not measured: {events:,} events on {cores} such cores of Spark take {minutes:.0f} min"
        )


if __name__ == "__main__":
    main()
