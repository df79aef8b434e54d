"""ranker.onnx: a small network, by onnxruntime."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.vectorize import COLUMNS
from serving.stages.tower import session
from serving.types import Floats

WIDTH, PAIRS = len(COLUMNS), 16


class Perceptron:
    """A network that scores each candidate by itself, one thread."""

    def __init__(self, path: Path) -> None:
        self._session = session(path)
        base = json.loads(self._session.get_modelmeta().custom_metadata_map["base"])
        self._base = np.array(base, np.float32)  # null becomes NaN

    def predict(self, matrix: Floats) -> Floats:
        """float32 or float64 (n, 28), NaN for unknown -> float32 (n,), greater is better."""
        rows = np.ascontiguousarray(matrix, np.float32)
        scores: Floats = np.asarray(self._session.run(["score"], {"columns": rows})[0])
        return scores

    def contributions(self, matrix: Floats) -> npt.NDArray[np.float64]:
        """(n, 28) -> (n, 29): of each column, and last what a score begins with; a row adds up to its score.

        Shapley values against the middle candidate of the training set, whose score comes last, by sampled
        orders of the columns, each with its reverse (Castro et al., Computers & Operations Research 2009):
        estimates, the same for the same row.
        """
        found = np.empty((len(matrix), WIDTH + 1))
        come = PLACES[:, None] < np.arange(WIDTH + 1)[:, None]  # (orders, steps, 28)
        for at, row in enumerate(np.asarray(matrix, np.float32)):
            scores = self.predict(np.where(come, row, self._base).reshape(-1, WIDTH))
            steps = np.diff(scores.reshape(len(PLACES), -1).astype(np.float64), axis=1)
            found[at, :-1] = np.take_along_axis(steps, PLACES, axis=1).mean(axis=0)
            found[at, -1] = scores[0]
        return found


def _places() -> npt.NDArray[np.int64]:
    """(orders, 28): when each column comes in an order."""
    rng = np.random.default_rng(0)
    forth = np.array([rng.permutation(WIDTH) for _ in range(PAIRS)])
    return np.concatenate([forth, WIDTH - 1 - forth])


PLACES = _places()
