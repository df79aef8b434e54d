"""The gate's metrics against hand-worked cases and against what must hold for every list."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.protocol import metrics
from pipelines.protocol.metrics import (
    MetricError,
    arp,
    bootstrap_interval,
    coverage,
    exposures,
    gini,
    ndcg,
    ndcg_at,
    novelty,
    recall_at,
)

rankings = st.permutations(range(15)).flatmap(
    lambda items: st.tuples(st.just(items), st.sets(st.sampled_from(items), min_size=1))
)


def test_docstring_examples_hold() -> None:
    ran = doctest.testmod(metrics)
    assert ran.attempted >= 10
    assert ran.failed == 0


def test_ndcg_worked_by_hand() -> None:
    # Hits at places 2 and 4 of 4, three relevant: (1/log2 3 + 1/log2 5) / (1 + 1/log2 3 + 1/log2 4)
    expected = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / 2)
    assert ndcg(["x", "a", "y", "b"], {"a", "b", "c"}, k=4) == pytest.approx(expected, abs=1e-12)


def test_ndcg_ideal_is_capped_at_k_so_that_a_full_list_of_hits_is_perfect() -> None:
    assert ndcg(list(range(12)), set(range(40)), k=12) == 1.0


def test_ndcg_looks_at_the_first_k_places_only() -> None:
    assert ndcg([1, 2, 3, 9], {9}, k=3) == 0.0


@given(rankings)
def test_ndcg_is_between_zero_and_one_and_one_for_the_ideal_list(case: tuple[list[int], set[int]]) -> None:
    items, relevant = case
    ideal = sorted(items, key=lambda item: item not in relevant)
    assert 0.0 <= ndcg(items, relevant) <= 1.0 + 1e-12
    assert ndcg(ideal, relevant) == pytest.approx(1.0, abs=1e-12)


@given(rankings, st.integers(0, 10))
def test_moving_a_relevant_item_up_never_lowers_ndcg(case: tuple[list[int], set[int]], place: int) -> None:
    items, relevant = list(case[0]), case[1]
    before = ndcg(items, relevant)
    if items[place] not in relevant and items[place + 1] in relevant:
        items[place], items[place + 1] = items[place + 1], items[place]
        assert ndcg(items, relevant) > before
    else:
        items[place + 1 :] = sorted(items[place + 1 :], key=lambda item: item not in relevant)
        assert ndcg(items, relevant) >= before - 1e-12


@given(st.lists(rankings, min_size=1, max_size=6), st.integers(1, 15))
def test_vectorised_ndcg_and_recall_equal_one_query_at_a_time(
    cases: list[tuple[list[int], set[int]]], k: int
) -> None:
    hits = np.array([[item in relevant for item in items] for items, relevant in cases])
    counts = np.array([len(relevant) for _, relevant in cases])
    assert ndcg_at(hits, counts, k).tolist() == [ndcg(items, relevant, k) for items, relevant in cases]
    recalls = [len(relevant & set(items[:k])) / len(relevant) for items, relevant in cases]
    assert recall_at(hits, counts, k) == pytest.approx(recalls, abs=1e-12)


@pytest.mark.parametrize(
    ("hits", "counts", "message"),
    [
        ([[True, True]], [1], "more hits than relevant"),
        ([[False, True]], [0], "without a relevant item"),
        ([[False, True]], [1, 1], "does not fit 2 queries"),
    ],
)
def test_impossible_hits_are_refused(hits: list[list[bool]], counts: list[int], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        ndcg_at(np.array(hits), np.array(counts))


def test_a_list_that_repeats_an_item_is_refused() -> None:
    with pytest.raises(MetricError, match="repeats an item"):
        ndcg([1, 1], {1})


def test_padded_arrays_and_ragged_lists_agree() -> None:
    ragged, padded = [[0, 3], [3], []], np.array([[0, 3], [3, -1], [-1, -1]])
    popularity = np.array([4, 2, 1, 1])
    assert exposures(ragged, 4).tolist() == exposures(padded, 4).tolist() == [1, 0, 0, 2]
    assert coverage(ragged, 4) == coverage(padded, 4) == 0.5
    # List 1: -log2(4/8) = 1 and -log2(1/8) = 3, mean 2; list 2: 3; the empty list says nothing.
    assert novelty(ragged, popularity) == novelty(padded, popularity) == 2.5
    assert arp(ragged, popularity) == arp(padded, popularity) == (2.5 + 1) / 2


def test_novelty_of_an_item_without_events_is_that_of_one_event() -> None:
    assert novelty([[1]], np.array([7, 0])) == novelty([[1]], np.array([6, 1])) == math.log2(7)


def test_coverage_refuses_fewer_candidates_than_listed_items() -> None:
    with pytest.raises(MetricError, match="n_candidates: 1 is too small; 2 distinct"):
        coverage([[0, 1]], 1)


def test_exposure_outside_the_catalogue_is_refused() -> None:
    with pytest.raises(MetricError, match=r"row 5 .* 0\.\.3"):
        exposures([[5]], 4)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any))
def test_gini_equals_the_mean_difference_definition(counts: list[int]) -> None:
    x = np.array(counts)
    differences = np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean())
    assert gini(x) == pytest.approx(differences, abs=1e-9)
    assert 0 <= gini(x) <= 1 - 1 / len(x) + 1e-12


def test_bootstrap_matches_the_normal_interval_of_a_large_sample() -> None:
    rng = np.random.default_rng(7)
    values = rng.random(4000)
    low, high = bootstrap_interval(values, rng, draws=1000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=half * 0.15)
    assert high == pytest.approx(values.mean() + half, abs=half * 0.15)


def test_clustered_bootstrap_is_not_fooled_by_copies() -> None:
    sessions = np.random.default_rng(3).random(200)
    copies, label = np.repeat(sessions, 16), np.repeat(np.arange(200), 16)

    def width(values: np.ndarray, clusters: np.ndarray | None) -> float:
        low, high = bootstrap_interval(values, np.random.default_rng(5), 500, clusters=clusters)
        return high - low

    assert width(copies, label) == pytest.approx(width(sessions, None), rel=1e-9)
    assert width(copies, None) < 0.4 * width(copies, label)


def test_bootstrap_is_repeatable_and_wider_at_a_higher_level() -> None:
    values = np.random.default_rng(0).random(50)
    first, again = (bootstrap_interval(values, np.random.default_rng(1), 200) for _ in range(2))
    wide = bootstrap_interval(values, np.random.default_rng(1), 200, level=0.99)
    assert first == again
    assert wide[0] <= first[0] <= values.mean() <= first[1] <= wide[1]


@pytest.mark.parametrize(("values", "level"), [([], 0.95), ([0.1], 1.0)])
def test_bootstrap_refuses_nothing_and_certainty(values: list[float], level: float) -> None:
    with pytest.raises(MetricError, match="allowed:"):
        bootstrap_interval(np.array(values), np.random.default_rng(0), 10, level)
