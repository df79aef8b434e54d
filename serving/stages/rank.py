"""The ranker's turn: 28 columns for each candidate, one prediction, descending order."""

from typing import Protocol

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.vectorize import assemble
from feature_repo.assemble.visitor import History, Visitor
from serving.stages.odds import NONE, UNWEIGHTED, Clicks, phase, pull_of
from serving.tracing import Explained, Judged, Trace
from serving.types import Candidates, Floats, Ranked


class Ranker(Explained, Protocol):
    def predict(self, matrix: Floats) -> Floats:
        """float32 (n, 28) -> (n,), greater is better."""


class Untrained:
    """No trees, on a shop's first day or where none did better: the blend's order, the first quota first."""

    def predict(self, matrix: Floats) -> Floats:
        """(n, 28) -> (n,): 0, -1, -2, ... in the order of retrieval."""
        return -np.arange(len(matrix), dtype=np.float32)

    def contributions(self, matrix: Floats) -> None:
        """None: the place decides, and no column."""


def rank(
    ranker: Ranker,
    candidates: Candidates,
    visitor: Visitor,
    past: History,
    matrix: ItemMatrix,
    clicks: Clicks = UNWEIGHTED,
    attraction: Floats = NONE,
    trace: Trace | None = None,
) -> Ranked:
    """Candidates by descending score, or by what `clicks` makes of it; equal ones as they were retrieved."""
    features = assemble(visitor, past, matrix, candidates.rows, candidates.scores)
    raw = np.asarray(ranker.predict(features), np.float32) if len(features) else np.zeros(0, np.float32)
    score = raw
    if clicks is not UNWEIGHTED:
        score = clicks.score(past, raw, pull_of(attraction, candidates.rows))
    if trace is not None:
        now, pull = phase(past), pull_of(attraction, candidates.rows)
        weights = clicks.ranker[now], clicks.attraction[now]
        trace.judged = Judged(candidates.rows, features, raw, pull, weights, now, ranker)
    order = np.argsort(-score, kind="stable")
    source = tuple(candidates.source[i] for i in order.tolist())
    return Ranked(candidates.rows[order], score[order], source, features[order])
