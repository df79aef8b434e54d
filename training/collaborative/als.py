"""`endcap als`: sessions x items factorised by alternating least squares (Hu, Koren, Volinsky 2008).

The owner of `implicit` in Endcap. What is kept are the item factors: a shopper is folded in when asked.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import typer
from scipy import sparse

from feature_repo.params import load, shop
from training.dataset import Fit, cut_of, fit_dir, raw, read_catalogue, read_contacts, session_matrix
from training.fits import CHOICE, fitted
from training.tracking import tracked


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
    cut = cut_of(fit, shop())
    catalogue = read_catalogue()
    sessions = session_matrix(read_contacts(catalogue, cut), len(catalogue))
    logged = {**asdict(params), "cut": cut.isoformat()}
    with tracked(f"als {fit}", logged, (raw("events"), raw("items")), "none: raw contacts") as log:
        factors = fit_als(sessions, params)
        folder = fit_dir(fit) / "als"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "als_items.npy", whitened(factors, params.alpha, params.regularization))
        log.metrics({"sessions": sessions.shape[0], "warm_items": int(factors.any(axis=1).sum())})
        log.artifact(folder)
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


def fold_in(item_factors: np.ndarray, rows: np.ndarray, alpha: float, regularization: float) -> np.ndarray:
    """Factors float32 (f,) of a shopper with the catalogue rows `rows`; score of an item = factors @ item.

    x = (Y'Y + (alpha - 1) Y_u'Y_u + regularization I)^-1 alpha Y_u' 1, the step that fits a session in
    training. Y'Y of the catalogue can be computed once.
    """
    seen = item_factors[rows].astype(np.float64)
    every = item_factors.astype(np.float64)
    gram = every.T @ every + (alpha - 1) * seen.T @ seen + regularization * np.eye(every.shape[1])
    return np.linalg.solve(gram, alpha * seen.sum(axis=0)).astype(np.float32)


def whitened(item_factors: np.ndarray, alpha: float, regularization: float) -> np.ndarray:
    """Factors W float32 (items, f) with which serving folds in without a constant or a catalogue-wide sum.

    With A = Y'Y + regularization I = LL' and W = sqrt(alpha - 1) Y L^-T, `fold_in` scores every item by
    W W_u' (W_u W_u' + I)^-1 1, up to the factor alpha / (alpha - 1): the push-through identity.
    """
    every = item_factors.astype(np.float64)
    lower = np.linalg.cholesky(every.T @ every + regularization * np.eye(every.shape[1]))
    return (np.sqrt(alpha - 1) * np.linalg.solve(lower, every.T).T).astype(np.float32)
