"""EASE: the closed-form linear item-item model (Steck 2019, "Embarrassingly shallow autoencoders")."""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

_BLOCK = 2048


@dataclass(frozen=True)
class EaseParams:
    """`item_item.ease:`, closed-form linear item-item model."""

    regularization: float
    min_sessions: int
    max_items: int  # the most contacted: memory grows with their square, time with their cube


def fit_ease(sessions: sparse.csr_matrix, params: EaseParams) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the warm items, and which those are.

    sessions  binary CSR (sessions, items)
    returns   float32 (w, w) with a zero diagonal, row = item of the history, column = item scored, and the
              ascending catalogue rows int64 (w,) of the items in at least `min_sessions` sessions; where they
              are more than `max_items`, of those in most sessions

    With G = X'X and P = (G + regularization I)^-1:  B[i, j] = -P[i, j] / P[j, j]. P comes from a float32
    Cholesky factor: half the memory and time of float64, and regularization bounds the condition number.
    """
    counts = np.asarray(sessions.sum(axis=0)).ravel()
    warm = np.flatnonzero(counts >= params.min_sessions)
    if len(warm) > params.max_items:
        warm = np.sort(warm[np.argsort(-counts[warm], kind="stable")[: params.max_items]])
    x = sessions[:, warm].astype(np.float32)
    gram = (x.T @ x).toarray(order="F")
    gram[np.diag_indices_from(gram)] += np.float32(params.regularization)
    factor, _ = linalg.lapack.spotrf(gram, lower=1, overwrite_a=1)
    inverse, _ = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)  # fills the lower triangle only
    for start in range(0, len(warm), _BLOCK):  # in blocks: index arrays of a triangle outweigh the matrix
        rows = slice(start, start + _BLOCK)
        corner = np.tril(inverse[rows, rows])
        inverse[rows, rows] = corner + np.tril(corner, -1).T
        inverse[rows, start + _BLOCK :] = inverse[start + _BLOCK :, rows].T
    inverse = inverse.T  # equal, as it is symmetric, and its rows lie together: no copy is needed
    inverse /= -np.diag(inverse).copy()
    np.fill_diagonal(inverse, 0)
    return np.ascontiguousarray(inverse), warm
