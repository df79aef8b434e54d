"""The ranker's fit: what is judged is binary, an order pulls more than a view, and chances are honest."""

from __future__ import annotations

import doctest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shops.rankings import PARAMS, examples

from feature_repo.errors import ParamsError
from training.ranking import calibration, importance
from training.ranking import examples as contract
from training.ranking.calibration import calibrate
from training.ranking.examples import as_retrieved, ndcg
from training.ranking.lambdarank import fit
from training.ranking.objective import OBJECTIVES


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(calibration).failed == doctest.testmod(contract).failed == 0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_curve_is_binary_ndcg_and_an_order_stands_above_a_view(objective: str) -> None:
    valid = examples(2)
    fitted = fit(examples(1), valid, replace(PARAMS, objective=objective))
    assert fitted.curve[fitted.best_round - 1] > 0.95
    ranked = replace(valid, label=np.minimum(valid.label, 1))
    order = np.argsort(-fitted.scores.reshape(-1, 20), axis=1, kind="stable") + 20 * np.arange(120)[:, None]
    listed = replace(ranked, matrix=ranked.matrix[order.ravel()], label=ranked.label[order.ravel()])
    assert as_retrieved(listed, 12) == pytest.approx(fitted.curve[fitted.best_round - 1], abs=2e-3)
    assert ndcg(ranked, fitted.scores, 12) == as_retrieved(listed, 12)
    bought, viewed = fitted.scores[valid.label == 3], fitted.scores[valid.label == 1]
    assert np.median(bought) > np.median(viewed)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "catboost"}, "ranker.kind: 'catboost' .* allowed: lightgbm, xgboost, mlp"),
        ({"objective": "binary"}, "ranker.objective: 'binary' .* allowed: lambdarank, rank_xendcg"),
        ({"gains": (0.0, 1.0)}, r"ranker.gains: \[0.0, 1.0\] .* four numbers"),
        ({"gains": (0.0, 3.0, 1.0, 7.0)}, "none less than the one before"),
    ],
)
def test_an_objective_or_gains_that_make_no_sense_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ParamsError, match=told):
        replace(PARAMS, **changes)  # type: ignore[arg-type]


def test_chances_are_true_on_average_and_better_than_one_for_all() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(size=20_000)
    wanted = rng.random(20_000) < 1 / (1 + np.exp(3 - 2 * score))
    found = calibrate(score, wanted, np.full(200, 100))
    assert found.brier < 0.9 * found.plain
    for told, true, many in found.reliability:
        assert many > 0 and told == pytest.approx(true, abs=0.03)
    assert (np.diff(found.chance) >= 0).all() and (np.diff(found.score) > 0).all()
    assert np.interp(0.0, found.score, found.chance) == pytest.approx(1 / (1 + np.exp(3)), abs=0.03)


def test_a_fit_leaves_a_curve_shares_chances_and_a_picture(tmp_path: Path) -> None:
    valid = examples(2)
    fitted = fit(examples(1), valid, PARAMS)
    written = importance.write(fitted, calibrate(fitted.scores, valid.label > 0, valid.group), tmp_path)
    names = ["curve.csv", "importance.csv", "calibration.json", "ranker.png"]
    assert [path.name for path in written] == names
    assert all(path.stat().st_size for path in written)
