"""Lists whose right order is known, and settings that learn it in a moment."""

from __future__ import annotations

import numpy as np

from feature_repo.assemble.vectorize import COLUMNS
from training.ranking.examples import Examples
from training.ranking.objective import MlpParams, RankerParams

PARAMS = RankerParams(
    kind="lightgbm",
    objective="lambdarank",
    gains=(0.0, 1.0, 3.0, 7.0),
    seed=1,
    threads=1,
    max_rounds=30,
    patience=10,
    learning_rate=0.1,
    num_leaves=7,
    min_data_in_leaf=5,
    feature_fraction=1.0,
    lambda_l2=1.0,
    truncation=20,
    k=12,
    mlp=MlpParams(bins=8, hidden=(16,), epochs=12, lists=8, learning_rate=0.01, weight_decay=0.01),
)


def examples(seed: int, queries: int = 120, many: int = 20) -> Examples:
    """The first column says what is viewed, the second what is bought; both cannot be had at the top.

    A tenth of the other columns is unknown.
    """
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(queries * many, len(COLUMNS))).astype(np.float32)
    label = np.where(matrix[:, 1] > 1.5, 3, np.where(matrix[:, 0] > 1.0, 1, 0)).astype(np.int8)
    matrix[:, 2:][rng.random((len(matrix), len(COLUMNS) - 2)) < 0.1] = np.nan
    return Examples(matrix, label, np.full(queries, many))
