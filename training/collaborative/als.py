"""`endcap als`: sessions x items factorised by alternating least squares (Hu, Koren, Volinsky 2008).

The owner of `implicit` in Endcap. What is kept are the item factors: a shopper is folded in when asked.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer
from scipy import sparse

from feature_repo.params import load
from training.dataset import Fit, fitting, session_matrix
from training.fits import CHOICE, fitted


@dataclass(frozen=True)
class AlsParams:
    """`als:`, implicit-feedback matrix factorisation."""

    seed: int
    factors: int
    regularization: float
    alpha: float
    iterations: int


def main(fit: Annotated[Fit | None, typer.Option(help=CHOICE)] = None) -> None:
    """Factorise sessions x items by alternating least squares."""
    fitted(_fit, fit)


def _fit(fit: Fit) -> str:
    params = load("als", AlsParams)
    with fitting("als", fit, params) as job:
        sessions = session_matrix(job.contacts, len(job.catalogue))
        factors = fit_als(sessions, params)
        np.save(job.folder / "als_items.npy", whitened(factors, params.alpha, params.regularization))
        job.run.metrics({"sessions": sessions.shape[0], "warm_items": int(factors.any(axis=1).sum())})
    return f"als {fit}: {sessions.shape[0]} sessions, factors {factors.shape[0]} x {factors.shape[1]}"


def fit_als(sessions: sparse.csr_matrix, params: AlsParams) -> np.ndarray:
    """Item factors float32 (items, factors); zeros for items without a session.

    One thread: the library's threads add in the order in which they finish, and the bytes would differ.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=params.factors,
        regularization=params.regularization,
        alpha=params.alpha,
        iterations=params.iterations,
        num_threads=1,
        random_state=params.seed,
    )
    model.fit(sessions, show_progress=False)
    factors = np.array(model.item_factors, dtype=np.float32)
    factors[np.diff(sessions.tocsc().indptr) == 0] = 0  # only the random start is left of them
    return factors


def whitened(item_factors: np.ndarray, alpha: float, regularization: float) -> np.ndarray:
    """Factors W float32 (items, f) with which serving folds in without a constant or a catalogue-wide sum.

    The step that fits a session in training gives a shopper of the items u the factors
    x = (A + (alpha - 1) Y_u'Y_u)^-1 alpha Y_u' 1 with A = Y'Y + regularization I = LL'. For
    W = sqrt(alpha - 1) Y L^-T the scores Y x are W W_u' (W_u W_u' + I)^-1 1, up to the factor
    alpha / (alpha - 1): the push-through identity.
    """
    every = item_factors.astype(np.float64)
    lower = np.linalg.cholesky(every.T @ every + regularization * np.eye(every.shape[1]))
    return (np.sqrt(alpha - 1) * np.linalg.solve(lower, every.T).T).astype(np.float32)
