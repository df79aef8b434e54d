"""`endcap als`: sessions x items factorised by alternating least squares (Hu, Koren, Volinsky 2008).

The owner of `implicit` in Endcap. What is kept are the item factors: a shopper is folded in when asked. How
strongly the factors are held to zero is chosen per shop: on one the best is forty times that of another.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import numpy as np
import typer
from scipy import sparse

from feature_repo.clock import DAY_US, micros
from feature_repo.params import load
from training.dataset import Contacts, Fit, first_contacts, fitting, session_matrix
from training.fits import CHOICE, fitted

CANDIDATES = 120  # that the ranker sees; of a small catalogue a quarter, or every item would be among them


@dataclass(frozen=True)
class AlsParams:
    """`als:`, implicit-feedback matrix factorisation."""

    seed: int
    factors: int
    regularizations: tuple[float, ...]  # to choose from; the first where nothing can be asked
    alpha: float
    iterations: int
    valid_days: int  # before the cut, whose visits choose
    valid_visits: int  # at most


def main(fit: Annotated[Fit | None, typer.Option(help=CHOICE)] = None) -> None:
    """Factorise sessions x items by alternating least squares."""
    fitted(_fit, fit)


def _fit(fit: Fit) -> str:
    params = load("als", AlsParams)
    with fitting("als", fit, params) as job:
        table, recalls = fold_in_table(job.contacts, len(job.catalogue), job.cut, params)
        np.save(job.folder / "als_items.npy", table)
        chosen, sessions = best_of(recalls), len(np.unique(job.contacts.session))
        told = {"sessions": sessions, "warm_items": int(table.any(axis=1).sum()), "regularization": chosen}
        job.run.metrics({**told, "recall_held_out": recalls[chosen]})
    shape = f"{sessions} sessions, factors {table.shape[0]} x {table.shape[1]}"
    return f"als {fit}: {shape}, regularization {chosen:g} of {', '.join(f'{one:g}' for one in recalls)}"


def fold_in_table(
    contacts: Contacts, items: int, cut: datetime, params: AlsParams
) -> tuple[np.ndarray, dict[float, float]]:
    """The table of `whitened` (items, f) under the regularization that finds most, and what each found."""
    recalls = tried(contacts, items, micros(cut), params)
    chosen = best_of(recalls)
    return whitened(fit_als(session_matrix(contacts, items), params, chosen), params.alpha, chosen), recalls


def best_of(recalls: dict[float, float]) -> float:
    """The regularization of the highest recall, the first of equals."""
    return max(recalls, key=lambda strength: recalls[strength])


def tried(contacts: Contacts, items: int, cut_us: int, params: AlsParams) -> dict[float, float]:
    """Regularization -> recall of the second halves of held-out visits, asked with their first halves.

    The visits are those of the last `valid_days`, each item once; of many, evenly spaced ones. 0 everywhere
    where there is none, or nothing before them.
    """
    since = cut_us - params.valid_days * DAY_US
    places = first_contacts(contacts)
    starts = np.flatnonzero(np.diff(places.session, prepend=-1))
    visits = zip(np.split(places.item, starts[1:]), places.ts[starts], strict=True)
    late = [visit for visit, begun in visits if begun >= since and len(visit) > 1]
    asked = late[:: -(-len(late) // params.valid_visits) or 1]
    before = contacts.select(contacts.ts < since)
    if not asked or not len(before) or len(params.regularizations) == 1:
        return dict.fromkeys(params.regularizations, 0.0)
    sessions, k = session_matrix(before, items), max(1, min(CANDIDATES, items // 4))
    found = {}
    for strength in params.regularizations:
        table = whitened(fit_als(sessions, params, strength), params.alpha, strength)
        found[strength] = float(np.mean([_recall(table, visit, k) for visit in asked]))
    return found


def _recall(table: np.ndarray, visit: np.ndarray, k: int) -> float:
    """Share of a visit's second half among the best `k` that the first half, its items once, is given."""
    known, wanted = np.split(visit, [(len(visit) + 1) // 2])
    seen = table[known]
    scores = table @ (seen.T @ np.linalg.solve(seen @ seen.T + np.eye(len(known)), np.ones(len(known))))
    scores[known] = -np.inf
    return float(np.isin(wanted, np.argsort(-scores, kind="stable")[:k]).mean())


def fit_als(sessions: sparse.csr_matrix, params: AlsParams, regularization: float) -> np.ndarray:
    """Item factors float32 (items, factors); zeros for items without a session.

    One thread: the library's threads add in the order in which they finish, and the bytes would differ.
    """
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=params.factors,
        regularization=regularization,
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
