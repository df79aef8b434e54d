"""The ranker: LightGBM over exactly 28 columns, on graded labels: view, cart, order.

What is judged is binary, as at the gate: was the item wanted at all. The number of trees is chosen by NDCG@12
on the validation span; then the ranker is fitted again on training and validation together, so that it has
seen the weeks just before the release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import DataError
from training.ranking.objective import RankerParams, settings

Floats = npt.NDArray[np.float32]
SMOOTHED = 5  # rounds


@dataclass(frozen=True)
class Examples:
    """Candidates of many queries, one after the other.

    matrix float32 (n, 28) · label int8 (n,): 0 no contact, 1 view, 2 cart, 3 order
    group int64 (q,), candidates of each query
    """

    matrix: Floats
    label: npt.NDArray[np.int8]
    group: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.matrix.shape != (len(self.label), len(COLUMNS)) or self.group.sum() != len(self.label):
            raise DataError(
                "ranker training set",
                f"matrix {self.matrix.shape}, {len(self.label)} labels and groups of {self.group.sum()} rows "
                f"do not fit together; columns must be {len(COLUMNS)}",
                next_step="run `endcap ranker_data` again",
            )

    def __add__(self, other: Examples) -> Examples:
        return Examples(
            np.concatenate([self.matrix, other.matrix]),
            np.concatenate([self.label, other.label]),
            np.concatenate([self.group, other.group]),
        )


@dataclass(frozen=True)
class Fitted:
    """`booster` predicts (n, 28) -> (n,); `curve` is NDCG@k on the validation span after each tree.

    `trial` is of training alone: what may be asked on validation. Its first `best_round` trees count, and
    `scores` (n,) are what they say of the validation span.
    """

    booster: lgb.Booster
    trial: lgb.Booster
    best_round: int
    curve: tuple[float, ...]
    scores: npt.NDArray[np.float64]

    def importance(self) -> dict[str, float]:
        """Share of the total gain per column, greatest first; sums to 1."""
        gain = self.booster.feature_importance("gain")
        share = gain / max(gain.sum(), 1e-12)
        return {COLUMNS[i]: float(share[i]) for i in np.argsort(-share, kind="stable")}


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
    return Fitted(final, trial, best, curve, scores)


def as_retrieved(examples: Examples, k: int) -> float:
    """Mean binary NDCG@k of the candidates in the order of retrieval: what trees must beat; 0 without any.

    >>> wanted = np.array([0, 1, 1, 0], np.int8)
    >>> two = Examples(np.zeros((4, len(COLUMNS)), np.float32), wanted, np.array([2, 2]))
    >>> round(as_retrieved(two, 12), 4)
    0.8155
    """
    gains = 1 / np.log2(np.arange(2, k + 2))
    found = []
    for label in np.split(examples.label > 0, np.cumsum(examples.group)[:-1]):
        if label.any():
            found.append(gains[: len(label)][label[:k]].sum() / gains[: label.sum()].sum())
    return float(np.mean(found)) if found else 0.0


def best_round(curve: Sequence[float]) -> int:
    """The round, from 1, around which NDCG is best: the greatest mean of `SMOOTHED` rounds.

    A single round may shine by chance, the first above all, whose few distinct scores leave ties.

    >>> best_round([0.9, 0.1, 0.1, 0.3, 0.5, 0.5, 0.5, 0.3, 0.1])
    6
    """
    width = min(SMOOTHED, len(curve))
    means = np.convolve(curve, np.full(width, 1 / width), "valid")
    return int(np.argmax(means)) + width // 2 + 1


def _dataset(examples: Examples, reference: lgb.Dataset | None = None) -> lgb.Dataset:
    return lgb.Dataset(
        examples.matrix,
        examples.label,
        group=examples.group,
        feature_name=list(COLUMNS),
        reference=reference,
        free_raw_data=False,
    )
