"""What benchmarks/quality.py says of lists: means, intervals, the distance to the best single model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from verdict import Result, draw, lines, measured, summed

METRIC = "ndcg_at_12"
COLUMNS = ((METRIC, "NDCG@12", ".3f"), ("coverage_at_12", "coverage", ".2f"))
VISITS = np.repeat(np.arange(50), 4)


def results() -> dict[str, Result]:
    rng = np.random.default_rng(0)
    base = np.repeat(rng.random(50), 4)
    models = {
        "ours": base + 0.1,
        "good": base,
        "bad": base - 0.05,
        "luck": np.stack([base - 0.1, base - 0.3]),
    }
    return {name: Result({METRIC: np.atleast_2d(v)}, {"coverage_at_12": 0.5}) for name, v in models.items()}


def test_models_are_compared_on_the_same_queries_with_the_best_single_one() -> None:
    found = summed(results(), METRIC, VISITS, ["good", "bad", "luck"], seed=1)
    assert [name for name in found if found[name]["best_single"]] == ["good"]
    assert found["ours"]["above_best_single"] == pytest.approx([0.1, 0.1])  # paired: visits differ, not this
    assert found["ours"]["interval"][0] < found["ours"][METRIC] < found["ours"]["interval"][1]
    assert found["good"]["times_best_single"] == 1.0


def test_seeds_are_averaged_and_shown() -> None:
    found = summed(results(), METRIC, VISITS, ["good"], seed=1)
    assert np.diff(found["luck"]["seeds"]) == pytest.approx([-0.2])
    assert found["luck"][METRIC] == pytest.approx(np.mean(found["luck"]["seeds"]))
    assert found["luck"]["above_best_single"] == pytest.approx([-0.2, -0.2])


def test_the_table_is_best_first_and_a_dash_stands_for_what_was_not_measured(tmp_path: Path) -> None:
    found = summed(results(), METRIC, VISITS, ["good"], seed=1)
    rows = lines(found, COLUMNS)
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| ours", "| **good**", "| bad", "| luck"]
    assert rows[2].endswith("| - | - | - |") and rows[0].count("|") == rows[2].count("|")
    draw("Lists", found, METRIC, "NDCG@12", tmp_path / "lists.png")
    assert (tmp_path / "lists.png").stat().st_size > 1000


def test_a_fit_is_charged_its_own_time_and_memory() -> None:
    held: list[np.ndarray] = []
    cost = measured(lambda: held.append(np.ones(20_000_000)))
    assert 0 < cost.cpu_seconds < 5
    assert 0.12 < cost.peak_gb < 0.3
    assert measured(lambda: None).peak_gb < 0.05
