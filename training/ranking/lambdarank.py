"""ranker.kind lightgbm: trees over exactly 28 columns, on graded labels: view, cart, order.

What is judged is binary, as at the gate: was the item wanted at all. The number of trees is chosen by NDCG@12
on the validation span; then the ranker is fitted again on training and validation together, so that it has
seen the weeks just before the release.
"""

from __future__ import annotations

from dataclasses import replace

import lightgbm as lgb
import numpy as np

from feature_repo.assemble.vectorize import COLUMNS
from training.ranking.examples import Examples, Fitted, best_round, shares
from training.ranking.objective import RankerParams, settings


def fit(train: Examples, valid: Examples, params: RankerParams) -> Fitted:
    """Choose the number of trees on `valid`, then fit both together with that number."""
    curves: dict[str, dict[str, list[float]]] = {}
    data = _dataset(train)
    trial = lgb.train(
        settings(params) | {"metric": "ndcg", "eval_at": [params.k]},
        data,
        params.max_rounds,
        valid_sets=[_dataset(replace(valid, label=np.minimum(valid.label, 1)), data)],
        callbacks=[lgb.early_stopping(params.patience, verbose=False), lgb.record_evaluation(curves)],
    )
    curve = tuple(curves["valid_0"][f"ndcg@{params.k}"])
    best = best_round(curve)
    scores = np.asarray(trial.predict(valid.matrix, num_iteration=best, num_threads=params.threads))
    final = lgb.train(settings(params), _dataset(train + valid), best)
    files = final.model_to_string().encode(), trial.model_to_string(num_iteration=best).encode()
    return Fitted(*files, best, curve, scores, shares(final.feature_importance("gain")))


def _dataset(examples: Examples, reference: lgb.Dataset | None = None) -> lgb.Dataset:
    return lgb.Dataset(
        examples.matrix,
        examples.label,
        group=examples.group,
        feature_name=list(COLUMNS),
        reference=reference,
        free_raw_data=False,
    )
