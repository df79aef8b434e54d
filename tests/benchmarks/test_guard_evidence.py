"""What benchmarks/guard.py and trials.py say of the guard: hand-made looks, rehearsals, real data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import guard
import numpy as np
import pandas as pd
import pytest
import trials
from crowds import Regulars, Strangers

from feature_repo.params import load
from monitoring.experiment.guard import RolloutParams
from monitoring.experiment.sequential import ArmStatistics

PARAMS = load("rollout", RolloutParams)


def test_the_first_flag_ends_a_step_and_only_what_advanced_meets_the_next() -> None:
    looks = np.tile([100, 200, 300], (4, 1))
    arm = ArmStatistics.of(looks, 30 * looks, looks)
    down = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]], bool)
    up = np.array([[0, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    rule = guard.Rule(4)
    rule.step(down, up, arm)
    assert rule.rolled_back.tolist() == [True, False, False, False]
    assert rule.going.tolist() == [False, True, True, False]
    assert rule.user_days.tolist() == [200, 200, 300, 300]
    rule.step(~up, up & down, arm)
    assert rule.rolled_back.tolist() == [True, True, True, False]
    assert rule.user_days.tolist() == [200, 300, 400, 300]
    assert rule.impressions.tolist() == [6000, 9000, 12000, 9000]


@pytest.fixture(scope="module")
def rows() -> dict[float, dict[str, object]]:
    rng = np.random.default_rng(1)
    parts = guard.rollouts(Strangers(0.05, 0.1), (0.0, 0.3), PARAMS, rng, runs=60)
    return {drop: guard.summed([part], 60) for drop, part in parts.items()}


def test_the_guard_lets_equals_live_where_the_others_do_not(rows: dict[float, dict]) -> None:
    same = rows[0.0]
    assert same["guard"]["rolled_back"] <= PARAMS.alpha
    assert same["guard"]["promoted"] > 0.8
    assert same["naive"]["rolled_back"] > 0.8
    assert same["z, slots"]["rolled_back"] > same["z, shoppers"]["rolled_back"] > 0.3
    assert same["missed"] <= PARAMS.alpha_per_step


def test_a_large_drop_is_found_and_looking_has_its_price(rows: dict[float, dict]) -> None:
    worse = rows[0.3]
    assert worse["guard"]["rolled_back"] == 1.0
    at_any_look, at_one = worse["price"]
    assert at_one < at_any_look < 4 * at_one
    assert worse["guard"]["impressions"] == pytest.approx(30 * worse["guard"]["user_days"], rel=0.1)


def test_regulars_have_the_sums_of_their_own_totals() -> None:
    looks = np.array([400, 800, 1200])
    arm = Regulars(0.05, 0.1).arm(np.random.default_rng(2), 0.0, looks, runs=200)
    assert arm.shoppers[0].tolist() == [100, 100, 100]
    assert (arm.impressions == 30 * arm.user_days).all()
    assert arm.ctr.mean() == pytest.approx(0.05, rel=0.03)
    # var(x) / n^2 of n = 360 slots whose clicks correlate by .1
    expected = 0.05 * 0.95 * (1 + 359 / 10) / 360
    assert arm.shopper_variance[:, 2].mean() == pytest.approx(expected, rel=0.05)


def test_the_same_command_prints_the_same_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(guard, "CASES", ((Strangers(0.05, 0.0), (0.0, 0.3)),))
    printed = []
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["guard.py", "--runs", "8", "--json", str(tmp_path / "rows.json")])
        guard.main()
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert "| independent, CTR 5% | -30% | 100.0% (" in printed[0]
    assert [row["drop"] for row in json.loads((tmp_path / "rows.json").read_text())] == [0.0, 0.3]


def test_cumulative_means_and_variances_are_the_sums_of_shoppers() -> None:
    values = [np.random.default_rng(seed).poisson(0.7, 50) for seed in (3, 4)]
    told = {
        "count_t": 50,
        "mean_t": [v.mean() for v in values],
        "variance_t": [v.var(ddof=1) for v in values],
    }
    arm = trials.arm([pd.DataFrame(told)], "t", 3)
    assert arm.clicks[0] == pytest.approx([values[0].sum(), values[1].sum(), values[1].sum()])
    assert arm.clicks_sq[0, 0] == pytest.approx((values[0] ** 2).sum())
    assert arm.shopper_variance[0, 1] == pytest.approx(values[1].var(ddof=1))


def test_totals_are_dealt_out_over_the_looks_and_all_of_them() -> None:
    arm = trials.dealt(np.random.default_rng(5), np.array([3000, 50]), np.array([90, 0]))
    assert arm.clicks[:, -1].tolist() == [90, 0]
    assert arm.impressions[:, -1].tolist() == [3000, 50]
    assert (np.diff(arm.clicks, axis=1) >= 0).all()


def test_a_real_drop_is_told_and_missing_data_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(6)
    shown = np.array([600_000, 600_000])
    pair = tuple(
        trials.dealt(rng, shown, clicks) for clicks in (np.array([18_000, 30_000]), np.array([30_000] * 2))
    )
    assert trials.told("two", pair, PARAMS).startswith("| two | 2 | 1, 1 | 1, 1 | ")
    monkeypatch.setattr(sys, "argv", ["trials.py", "--data", str(tmp_path)])
    trials.main()
    assert f"skipped: no asos.parquet in {tmp_path}" in capsys.readouterr().out
