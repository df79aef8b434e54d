"""What every kind of ranker learns from, what its fit leaves, and which module fits it.

A kind is a module with `fit(train, valid, params) -> Fitted`: how long it learns is chosen on `valid` by
binary NDCG@k, then it is fitted on both together. The same examples give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import DataError
from training.ranking.objective import RankerParams

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
MODULES = {"lightgbm": "lambdarank", "xgboost": "rank_ndcg", "mlp": "listwise"}  # each with its own library
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
    """`model` is the file that serves; `curve` is NDCG@k on the validation span after each round.

    `trial` is of training alone: what may be asked on validation. It has learned for `best_round` rounds, and
    `scores` (n,) are what it says of the validation span. `unit` is what a round is. `shares` (28,) are the
    columns' shares of `weighed`, in sum 1.
    """

    model: bytes
    trial: bytes
    best_round: int
    curve: tuple[float, ...]
    scores: Doubles
    shares: Doubles
    unit: str = "trees"
    weighed: str = "the gain"

    def importance(self) -> dict[str, float]:
        """Each column's share, greatest first."""
        return {COLUMNS[i]: float(self.shares[i]) for i in np.argsort(-self.shares, kind="stable")}


def fit(train: Examples, valid: Examples, params: RankerParams) -> Fitted:
    """The ranker of `params.kind`. Raises ParamsError where its library is not installed."""
    found: Fitted = import_module(f"training.ranking.{MODULES[params.kind]}").fit(train, valid, params)
    return found


def shares(weights: npt.NDArray[np.floating]) -> Doubles:
    """Weights of no less than 0 as shares of their sum; of nothing, 0."""
    return np.asarray(weights / max(weights.sum(), 1e-12), np.float64)


def ndcg(examples: Examples, scores: npt.NDArray[np.floating], k: int) -> float:
    """Mean binary NDCG@k by descending score (n,); equal ones as they were retrieved."""
    query = np.repeat(np.arange(len(examples.group)), examples.group)
    order = np.lexsort((-scores, query))
    return as_retrieved(Examples(examples.matrix, examples.label[order], examples.group), k)


def as_retrieved(examples: Examples, k: int) -> float:
    """Mean binary NDCG@k of the candidates in the order of retrieval: what a ranker must beat; 0 without any.

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
