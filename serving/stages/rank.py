"""The ranker's turn: 28 columns for each candidate, one prediction, descending order."""

from typing import Protocol

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.vectorize import assemble
from feature_repo.assemble.visitor import History, Visitor
from serving.stages.odds import NONE, UNWEIGHTED, Clicks, pull_of
from serving.types import Candidates, Floats, Ranked


class Ranker(Protocol):
    def predict(self, matrix: Floats) -> Floats:
        """float32 (n, 28) -> (n,), greater is better."""


class Untrained:
    """No trees, on a shop's first day or where none did better: the blend's order, the first quota first."""

    def predict(self, matrix: Floats) -> Floats:
        """(n, 28) -> (n,): 0, -1, -2, ... in the order of retrieval."""
        return -np.arange(len(matrix), dtype=np.float32)


def rank(
    ranker: Ranker,
    candidates: Candidates,
    visitor: Visitor,
    past: History,
    matrix: ItemMatrix,
    clicks: Clicks = UNWEIGHTED,
    attraction: Floats = NONE,
) -> Ranked:
    """Candidates by descending score, or by what `clicks` makes of it; equal ones as they were retrieved."""
    features = assemble(visitor, past, matrix, candidates.rows, candidates.scores)
    score = np.asarray(ranker.predict(features), np.float32) if len(features) else np.zeros(0, np.float32)
    if clicks is not UNWEIGHTED:
        score = clicks.score(past, score, pull_of(attraction, candidates.rows))
    order = np.argsort(-score, kind="stable")
    source = tuple(candidates.source[i] for i in order.tolist())
    return Ranked(candidates.rows[order], score[order], source, features[order])
