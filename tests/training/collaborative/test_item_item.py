"""Co-visits and EASE: known answers, the closed form, what is kept of a row."""

from __future__ import annotations

import dataclasses
import doctest
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import sparse
from shops.retrieval_contract import ITEMS, RetrievalContract, Scorer, checkerboard, contacts_of

from training.collaborative import covisit, ease
from training.collaborative.covisit import CovisitParams, first_contacts, fit_covisit
from training.collaborative.ease import EaseParams, fit_ease
from training.collaborative.neighbours import best_of_dense, best_of_sparse
from training.dataset import Contacts, session_matrix

PARAMS = Path(__file__).resolve().parents[3] / "params.yaml"
COVISIT = CovisitParams(
    window=10, distance_decay=0.5, backward=0.25, kind_weights=(1.0, 2.0, 4.0), popularity=0.0
)
EASE = EaseParams(regularization=5.0, min_sessions=1, max_items=100)


def scorer_of(table: sparse.csr_matrix) -> Scorer:
    def score(histories: Sequence[Sequence[int]]) -> np.ndarray:
        history = sparse.lil_matrix((len(histories), table.shape[0]), dtype=np.float32)
        for row, items in enumerate(histories):
            history[row, list(items)] = 1
        return np.asarray((history.tocsr() @ table).toarray(), dtype=np.float32)

    return score


class TestCovisit(RetrievalContract):
    def fit(self, contacts: Contacts, items: int) -> Scorer:
        flat = dataclasses.replace(COVISIT, distance_decay=1.0, backward=1.0, window=items)
        return scorer_of(best_of_sparse(fit_covisit(contacts, items, flat), items))


class TestEase(RetrievalContract):
    def fit(self, contacts: Contacts, items: int) -> Scorer:
        weights, warm = fit_ease(session_matrix(contacts, items), EASE)
        return scorer_of(best_of_dense(weights, warm, items, items))


def test_docstring_examples_hold() -> None:
    ran = doctest.testmod(covisit, extraglobs={"Contacts": Contacts})
    assert (ran.attempted, ran.failed) == (2, 0)


def test_what_comes_after_counts_fully_and_what_came_before_by_backward() -> None:
    table = fit_covisit(contacts_of([[0, 1, 2]]), 4, COVISIT).toarray()
    expected = [[0, 1, 0.5, 0], [0.25, 0, 1, 0], [0.125, 0.25, 0, 0], [0, 0, 0, 0]]
    assert table.tolist() == expected


def test_a_purchase_weighs_its_item_and_only_its_item() -> None:
    contacts = contacts_of([[0, 1, 1, 0]])
    contacts.kind[2] = 3  # item 1 is viewed, then bought; item 0 is viewed twice
    places = first_contacts(contacts)
    assert (places.item.tolist(), places.kind.tolist()) == ([0, 1], [1, 3])
    assert fit_covisit(contacts, 2, COVISIT).toarray().tolist() == [[0, 4], [0.25, 0]]


def test_items_further_apart_than_the_window_or_in_two_sessions_do_not_meet() -> None:
    near = dataclasses.replace(COVISIT, window=1)
    table = fit_covisit(contacts_of([[0, 1, 2], [3]], owners=[0, 0]), 4, near).toarray()
    assert np.argwhere(table).tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]


def test_next_is_what_came_directly_after() -> None:
    shipped = yaml.safe_load(PARAMS.read_text())["item_item"]["next"]
    table = fit_covisit(contacts_of([[0, 1, 2]]), 4, CovisitParams(**shipped))
    assert np.argwhere(best_of_sparse(table, 4).toarray()).tolist() == [[0, 1], [1, 2]]


def test_full_popularity_correction_is_the_cosine() -> None:
    cosine = dataclasses.replace(COVISIT, distance_decay=1.0, backward=1.0, popularity=0.5)
    sessions = [[0, 1], [0, 1], [0, 2], [2, 1]]
    counts = np.array([[0, 2, 1], [2, 0, 1], [1, 1, 0]])
    total = counts.sum(axis=1)
    expected = counts / np.sqrt(np.outer(total, total))
    assert fit_covisit(contacts_of(sessions), 3, cosine).toarray() == pytest.approx(expected)


@pytest.mark.parametrize("block", [1, 5, 2048])
def test_ease_is_the_closed_form_on_warm_items(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "_BLOCK", block)
    rng = np.random.default_rng(0)
    sessions = (rng.random((60, 14)) < 0.2).astype(np.float32)
    sessions[:, 3] = 0
    sessions[:, 7] = 0
    sessions[5, 7] = 1
    params = EaseParams(regularization=2.0, min_sessions=2, max_items=100)
    weights, warm = fit_ease(sparse.csr_matrix(sessions), params)
    assert warm.tolist() == [i for i in range(14) if i not in (3, 7)]
    x = sessions[:, warm].astype(np.float64)
    p = np.linalg.inv(x.T @ x + 2 * np.eye(len(warm)))
    expected = -p / np.diag(p)
    np.fill_diagonal(expected, 0)
    assert weights == pytest.approx(expected, abs=1e-5)


def test_beyond_its_bound_ease_keeps_the_most_contacted_items_as_if_the_shop_had_no_others() -> None:
    rng = np.random.default_rng(1)
    sessions = (rng.random((80, 12)) < np.linspace(0.05, 0.5, 12)[rng.permutation(12)]).astype(np.float32)
    bound = dataclasses.replace(EASE, max_items=5)
    weights, warm = fit_ease(sparse.csr_matrix(sessions), bound)
    counts = sessions.sum(axis=0)
    assert len(warm) == 5 and counts[warm].min() >= np.delete(counts, warm).max()
    alone, _ = fit_ease(sparse.csr_matrix(sessions[:, warm]), EASE)
    assert np.array_equal(weights, alone) and weights.flags.c_contiguous


def test_the_best_positive_neighbours_of_a_row_are_kept() -> None:
    dense = np.array([[0, 3, -9, 2], [1, 0, 0, 0], [4, 5, 0, 6], [-1, -2, -3, 0]], dtype=np.float32)
    expected = np.zeros((6, 6), dtype=np.float32)
    warm = np.array([0, 2, 3, 5])
    expected[np.ix_(warm, warm)] = [[0, 3, 0, 2], [1, 0, 0, 0], [0, 5, 0, 6], [0, 0, 0, 0]]
    table = best_of_dense(dense, warm, 6, 2)
    assert (table.toarray() == expected).all()
    assert (best_of_sparse(sparse.csr_matrix(table), 2) != table).nnz == 0
    assert best_of_sparse(table, 1).toarray()[2].tolist() == [1, 0, 0, 0, 0, 0]
    assert table.has_sorted_indices and table.dtype == np.float32


def test_a_table_cut_to_fewer_neighbours_keeps_the_larger_weights() -> None:
    table = fit_covisit(contacts_of(checkerboard()), ITEMS, COVISIT)
    few = best_of_sparse(table, 3)
    for row in range(ITEMS):
        best = np.sort(table[row].toarray().ravel())[-3:]
        assert np.sort(few[row].data) == pytest.approx(best)
