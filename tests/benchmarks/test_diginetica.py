"""The tower's benchmark on made-up sessions: whole runs, the reason of a skip, and how ranks are counted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]


def benchmark(*options: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / "diginetica.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=True)
    return done.stdout


def test_without_the_data_it_is_skipped_and_says_so(tmp_path: Path) -> None:
    assert benchmark("--data", str(tmp_path / "none")).startswith(f"skipped: {tmp_path / 'none'} is absent")


def test_both_spans_are_told_and_what_training_never_met_is_a_miss(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sessions = [(100 + (rng.integers(40) + np.arange(6)) % 40).tolist() for _ in range(400)]  # round a ring
    pq.write_table(pa.table({"items": sessions}), tmp_path / "train_sessions.parquet")
    asked = {"prefix": [[100, 101], [777], [110]], "next_item": [102, 100, 888]}
    pq.write_table(pa.table(asked), tmp_path / "test_prefixes.parquet")
    told = benchmark("--data", str(tmp_path), "--epochs", "6", "--dim", "16", "--batch", "128")
    rows = dict(re.findall(r"(validation|test) │ +[\d,]+ │ +([\d.]+)", told))
    assert float(rows["validation"]) > 70  # half of the ring is chance
    assert rows["test"] == "33.3"  # one of three can be answered
    assert re.search(r"\d+ CPU s, [\d.]+ GB", told)
