"""ALS: the contract, and a shopper folded in by our formula against the library's own solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from shops.retrieval_contract import ITEMS, RetrievalContract, Scorer, checkerboard, contacts_of

from serving.stages import fitted
from training.collaborative.als import AlsParams, fit_als, tried, whitened
from training.dataset import Contacts, session_matrix

WEAK = 0.1
PARAMS = AlsParams(3, 2, (WEAK,), alpha=2.0, iterations=15, valid_days=1, valid_visits=100)  # two colours


def fold_in(item_factors: np.ndarray, rows: np.ndarray, alpha: float, regularization: float) -> np.ndarray:
    """The exact fold-in: factors float32 (f,) of a shopper with the catalogue rows `rows`."""
    seen = item_factors[rows].astype(np.float64)
    every = item_factors.astype(np.float64)
    gram = every.T @ every + (alpha - 1) * seen.T @ seen + regularization * np.eye(every.shape[1])
    return np.linalg.solve(gram, alpha * seen.sum(axis=0)).astype(np.float32)


def folded(factors: np.ndarray, history: Sequence[int]) -> np.ndarray:
    rows = np.array(history, dtype=np.int64)
    return fold_in(factors, rows, PARAMS.alpha, WEAK)


class TestAls(RetrievalContract):
    def fit(self, contacts: Contacts, items: int) -> Scorer:
        factors = fit_als(session_matrix(contacts, items), PARAMS, WEAK)
        return lambda histories: np.array([factors @ folded(factors, history) for history in histories])


@pytest.mark.parametrize("history", [[3], [0, 2, 4], list(range(1, 20, 2))])
def test_a_folded_in_session_equals_what_the_library_fits_for_it(history: list[int]) -> None:
    factors = fit_als(session_matrix(contacts_of(checkerboard()), ITEMS), PARAMS, WEAK)
    library = AlternatingLeastSquares(PARAMS.factors, WEAK, PARAMS.alpha, num_threads=1, random_state=0)
    library.item_factors = factors
    row = np.zeros((1, ITEMS), np.float32)
    row[0, history] = 1
    expected = library.recalculate_user(0, sparse.csr_matrix(row))
    assert folded(factors, history) == pytest.approx(expected, abs=1e-4)


def test_an_item_without_a_session_has_no_factors() -> None:
    factors = fit_als(session_matrix(contacts_of([[0, 1], [1, 3]]), 5), PARAMS, WEAK)
    assert factors.dtype == np.float32
    assert factors.any(axis=1).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("history", [[3], [0, 2, 4], list(range(1, 20, 2))])
def test_whitened_factors_fold_in_to_the_same_scores_without_a_constant(history: list[int]) -> None:
    rng = np.random.default_rng(5)
    factors = rng.normal(size=(ITEMS, 4)).astype(np.float32)
    alpha, strength = 40.0, 3.0
    rows = np.array(history, dtype=np.int64)
    exact = factors @ fold_in(factors, rows, alpha, strength)
    white = whitened(factors, alpha, strength)
    served = white @ fitted.fold_in(white, rows)
    assert served * alpha / (alpha - 1) == pytest.approx(exact, rel=1e-3, abs=1e-4)


def test_the_strength_that_finds_more_of_held_out_visits_is_known_by_it() -> None:
    """A visit of the checkerboard stays on its colour; factors that are held to zero know no colour."""
    contacts = contacts_of(checkerboard(rounds=4))
    last = int(contacts.ts.max()) + 1
    params = replace(PARAMS, regularizations=(1e9, WEAK), valid_days=1)
    recalls = tried(contacts, ITEMS, last, params)
    assert list(recalls) == [1e9, WEAK]
    assert recalls[WEAK] > 1.5 * recalls[1e9] > 0
    assert tried(contacts, ITEMS, last, params) == recalls


@pytest.mark.parametrize("days", [0, 10_000])
def test_without_a_held_out_visit_or_one_before_it_nothing_is_tried(days: int) -> None:
    contacts = contacts_of(checkerboard())
    params = replace(PARAMS, regularizations=(1e9, WEAK), valid_days=days)
    assert tried(contacts, ITEMS, int(contacts.ts.max()) + 1, params) == {1e9: 0.0, WEAK: 0.0}
