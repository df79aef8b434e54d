"""`make bench`: every budget has a benchmark that says its figure, and README holds a table of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import budgets
import pytest
from budgets import BUDGETS, FIGURES, Budget, tell

PROJECT = Path(__file__).resolve().parents[2]


def test_a_figure_is_held_against_its_bound_from_the_right_side() -> None:
    most, least = Budget("p99", "a", 10), Budget("knee", "b", 900, "/s", least=True, decimals=0)
    assert most.row({"a": 10.0}) == ("p99", "<= 10 ms", "10.0", "")
    assert most.row({"a": 10.1})[3] == "over"
    assert least.row({"b": 1234.0}) == ("knee", ">= 900 /s", "1,234", "")
    assert least.row({"b": 899.0})[3] == "over"
    assert most.row({})[2:] == ("not measured", "")


def test_benchmarks_tell_figures_only_to_who_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "figures.jsonl"
    monkeypatch.delenv(FIGURES, raising=False)
    tell(offline_s=1.0)
    monkeypatch.setenv(FIGURES, str(place))
    tell(offline_s=1.5)
    tell(offline_gb=2.0)
    assert [json.loads(line) for line in place.read_text().splitlines()] == [
        {"offline_s": 1.5},
        {"offline_gb": 2.0},
    ]


def test_every_budget_has_a_benchmark_that_says_its_figure() -> None:
    scripts = {run.script for run in budgets.RUNS}
    text = "".join((PROJECT / f"benchmarks/{name}.py").read_text() for name in scripts)
    text += (PROJECT / "benchmarks/budgets.py").read_text().split("def reported")[1]
    for budget in BUDGETS:
        stem = re.sub(r"_\d+$", "_", budget.figure)
        assert stem in text, f"{budget.figure}: no benchmark says it"


def test_the_table_fits_a_terminal_and_readme_holds_one_that_was_printed() -> None:
    lines = budgets.table({}).splitlines()
    assert max(map(len, lines)) <= 80
    shown = [line for line in (PROJECT / "README.md").read_text().splitlines() if line.startswith("| ")]
    rows = {line.split("|")[1].strip(): line.split("|")[2].strip() for line in shown}
    for budget in BUDGETS:
        assert rows.get(budget.what) == budget.row({})[1], f"README lacks the budget {budget.what!r}"
