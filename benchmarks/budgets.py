"""The budgets of the design beside what this machine measures: `make bench`.

    python benchmarks/budgets.py                   half an hour; a graph of a million items is most of it
    python benchmarks/budgets.py --only textbook --only offline

Runs the other benchmarks one after another, nothing beside them, and ends in one table of which README holds
a copy. A benchmark says its figures by `tell`, which writes nothing unless this job asked. Where no shop
runs (`endcap up`), what needs one is left out, by name; quality and the times of the stages are those of the
pipeline's last run, and what was not run again is of the run before (data/reports/budgets.json). A figure
beside a budget that it does not keep is `over`, not an error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from feature_repo.files import write_json
from feature_repo.places import EVALUATION, REPORTS, at
from feature_repo.ports import service_url
from pipelines.local.stages import REPORT

HERE, FIGURES = Path(__file__).resolve().parent, "ENDCAP_FIGURES"
KEPT = REPORTS / "budgets.json"


@dataclass(frozen=True)
class Budget:
    """`figure` is at most `bound`, or at least where `least`; `decimals` of it are shown."""

    what: str
    figure: str
    bound: float
    unit: str = "ms"
    least: bool = False
    decimals: int = 1

    def row(self, found: Mapping[str, float]) -> tuple[str, str, str, str]:
        """(what, target, measured, kept)"""
        target = f"{'>=' if self.least else '<='} {self.bound:,g} {self.unit}".strip()
        if self.figure not in found:
            return self.what, target, "not measured", ""
        value = found[self.figure]
        kept = value >= self.bound if self.least else value <= self.bound
        return self.what, target, f"{value:,.{self.decimals}f}", "" if kept else "over"


@dataclass(frozen=True)
class Run:
    """A benchmark, its options, and whether it asks the shop that runs."""

    script: str
    options: tuple[str, ...] = ()
    shop: bool = False


RUNS = (
    Run("load", ("--floor", "--rate", "100", "--rate", "300"), True),
    Run("freshness", ("--seconds", "10"), True),
    Run("newborn", (), True),
    Run("overload", (), True),
    Run("stream", ("--rate", "3000", "--seconds", "10"), True),
    Run("textbook"),
    Run("online"),
    Run("latency"),
    Run("offline"),
    Run("backfill"),
)
BUDGETS = (
    Budget("recommend, 100/s: p50", "load_p50_100", 2.5),
    Budget("recommend, 100/s: p99", "load_p99_100", 10),
    Budget("recommend, 300/s: p99", "load_p99_300", 10),
    Budget("answers that failed at these rates", "load_failed", 0, "", decimals=0),
    Budget("the whole answer over the sum of its parts", "load_parts", 2, "x", decimals=2),
    Budget("request path, 300/s, 12,000 items: p99", "latency_p99_12000", 10),
    Budget("request path, 300/s, 100,000 items: p99", "latency_p99_100000", 10),
    Budget("request path, 300/s, 1,000,000 items: p99", "latency_p99_1000000", 10),
    Budget("the textbook stack's p99 over ours, 100/s", "textbook_p99", 10, "x", True),
    Budget("feature stage, 100/s, 12,000 items: p99", "online_p99", 1, decimals=2),
    Budget("knee, client included", "overload_knee", 900, "/s", True, 0),
    Budget("4 x the knee, at most 2,000/s: p99", "overload_p99", 50),
    Budget("4 x the knee: answers that were not full", "overload_failed", 0, "", decimals=0),
    Budget("4 x the knee: itself again after", "overload_again_s", 2, "s", decimals=2),
    Budget("event posted -> in the next answer: p99", "fresh_event_p99", 50),
    Budget("new price or stock -> in an answer: p99", "fresh_price_p99", 1000, decimals=0),
    Budget("new item -> in a list: p99", "newborn_p99_s", 10, "s", decimals=2),
    Budget("events a second applied, 3,000/s asked for", "stream_applied", 2900, "/s", True, 0),
    Budget("1M x 64 vectors, K = 120: p95 of a search", "index_p95", 12, decimals=2),
    Budget("1M x 64 vectors, K = 120: recall", "index_recall", 0.95, "", True, 3),
    Budget("training set, 1M rows x 34 features", "offline_s", 5, "s", decimals=2),
    Budget("training set: peak memory", "offline_gb", 3, "GB"),
    Budget("backfill of 10M events", "backfill_s", 600, "s", decimals=0),
    Budget("`dvc repro` from nothing", "repro_s", 300, "s", decimals=0),
    Budget("NDCG@12 over the best single model's", "quality_over_best", 1.2, "x", True, 2),
    Budget("coverage@12", "quality_coverage", 0.8, "", True, 2),
)


def tell(**figures: float) -> None:
    """Say figures to `make bench`, by the names of BUDGETS; nothing where it did not ask.

    >>> tell(offline_s=1.9, offline_gb=1.1)
    """
    if place := os.environ.get(FIGURES):
        with Path(place).open("a") as out:
            out.write(json.dumps(figures) + "\n")


def reported() -> dict[str, float]:
    """What the shop's last `dvc repro` and its evaluation say; empty where nothing was trained here."""
    found: dict[str, float] = {}
    if at(EVALUATION).exists():
        models = json.loads(at(EVALUATION).read_bytes())["models"]
        ours = models.pop("endcap")
        best = max(model["ndcg_at_12"] for model in models.values())
        found["quality_over_best"] = ours["ndcg_at_12"] / best
        found["quality_coverage"] = ours["coverage_at_12"]
    if at(REPORT).exists():
        found["repro_s"] = json.loads(at(REPORT).read_bytes())["seconds"]
    return found


def open_shop() -> bool:
    try:
        with urllib.request.urlopen(f"{service_url()}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def table(found: Mapping[str, float]) -> str:
    """Markdown, 80 columns."""
    rows = [("what", "target", "measured", ""), *(budget.row(found) for budget in BUDGETS)]
    wide = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "| " + " | ".join(f"{cell:<{w}}" for cell, w in zip(row, wide, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in wide) + "|", *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = sorted({run.script for run in RUNS})
    parser.add_argument("--only", action="append", choices=names, help="repeatable")
    wanted = parser.parse_args().only or names
    shop, found = open_shop(), json.loads(at(KEPT).read_bytes()) if at(KEPT).exists() else {}
    found |= reported()
    with tempfile.TemporaryDirectory(prefix="endcap-bench-") as folder:
        place = Path(folder) / "figures.jsonl"
        place.touch()
        for run in (run for run in RUNS if run.script in wanted):
            print(f"\n== benchmarks/{run.script}.py {' '.join(run.options)}", flush=True)
            if run.shop and not shop:
                print(f"left out: no shop answers at {service_url()}; `endcap up` starts one")
                continue
            command = [sys.executable, str(HERE / f"{run.script}.py"), *run.options]
            if code := subprocess.run(command, env=os.environ | {FIGURES: str(place)}).returncode:
                print(f"ended with {code}: its figures are missing below")
        for line in place.read_text().splitlines():
            found |= json.loads(line)
    write_json(at(KEPT), found)
    print(f"\n{table(found)}")


if __name__ == "__main__":
    main()
