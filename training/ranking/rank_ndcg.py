"""ranker.kind xgboost: trees by XGBoost's rank:ndcg, on the same gains, groups and columns.

It is no dependency of Endcap: `make extras` installs it. `min_data_in_leaf` and `objective` are LightGBM's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import ParamsError
from training.ranking.examples import Examples, Fitted, best_round, shares
from training.ranking.objective import RankerParams


def fit(train: Examples, valid: Examples, params: RankerParams) -> Fitted:
    """Choose the number of trees on `valid`, then fit both together with that number."""
    curves: dict[str, dict[str, list[float]]] = {}
    xgb, asked = _library(), _settings(params)
    judged = replace(valid, label=np.minimum(valid.label, 1))
    trial = xgb.train(
        asked,
        _matrix(xgb, train, params.gains),
        params.max_rounds,
        evals=[(_matrix(xgb, judged, (0.0, 1.0)), "valid")],
        early_stopping_rounds=params.patience,
        evals_result=curves,
        verbose_eval=False,
    )
    curve = tuple(curves["valid"][f"ndcg@{params.k}"])
    best = best_round(curve)
    trial = trial[:best]
    scores = trial.inplace_predict(valid.matrix).astype(np.float64)
    final = xgb.train(asked, _matrix(xgb, train + valid, params.gains), best)
    gain = final.get_score(importance_type="total_gain")
    files = bytes(final.save_raw("json")), bytes(trial.save_raw("json"))
    return Fitted(*files, best, curve, scores, shares(np.array([gain.get(name, 0.0) for name in COLUMNS])))


def _settings(params: RankerParams) -> dict[str, Any]:
    """The same trees for the same rows: leaf by leaf, over histograms, as LightGBM grows its own."""
    return {
        "objective": "rank:ndcg",
        "ndcg_exp_gain": False,  # a label is its gain
        "lambdarank_pair_method": "topk",
        "lambdarank_num_pair_per_sample": params.truncation,
        "eval_metric": f"ndcg@{params.k}",
        "tree_method": "hist",
        "grow_policy": "lossguide",
        "max_depth": 0,
        "max_leaves": params.num_leaves,
        "eta": params.learning_rate,
        "colsample_bytree": params.feature_fraction,
        "lambda": params.lambda_l2,
        "seed": params.seed,
        "nthread": params.threads,
    }


def _matrix(xgb: Any, examples: Examples, gains: tuple[float, ...]) -> Any:
    label = np.array(gains)[examples.label]
    return xgb.DMatrix(examples.matrix, label, group=examples.group, feature_names=list(COLUMNS))


def _library() -> Any:
    try:
        import xgboost
    except ImportError:
        raise ParamsError(
            "ranker.kind: 'xgboost' needs a package that is not installed. Next: `make extras`, or choose "
            "lightgbm or mlp"
        ) from None
    return xgboost
