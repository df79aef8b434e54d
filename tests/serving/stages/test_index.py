"""Exact search against sorting everything, HNSW against exact search."""

from __future__ import annotations

import numpy as np
import pytest

from feature_repo.params import load
from serving.stages.index import Exact, Hnsw, IndexParams, build

PARAMS = IndexParams(exact_below=1000, m=16, ef_construction=128, ef_search=256)


def unit(rng: np.random.Generator, n: int, clusters: int = 40) -> np.ndarray:
    """float32 (n, 64): clustered, as catalogues are."""
    centres = rng.normal(size=(clusters, 64))
    vectors = centres[rng.integers(0, clusters, n)] + rng.normal(scale=0.7, size=(n, 64))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_exact_search_is_the_head_of_a_full_sort() -> None:
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng, 300), unit(rng, 20)
    for query in queries:
        rows, scores = Exact(vectors).search(query, 12)
        expected = np.argsort(-(vectors @ query), kind="stable")[:12]
        assert rows.tolist() == expected.tolist()
        assert scores.tobytes() == (vectors @ query)[expected].tobytes()


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
def test_equal_scores_come_in_order_of_row_and_small_catalogues_whole(kind: str) -> None:
    vectors = np.repeat(unit(np.random.default_rng(1), 2), 3, axis=0)
    index = Exact(vectors) if kind == "exact" else Hnsw(vectors, PARAMS)
    assert index.search(vectors[0], 120)[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert len(index.search(vectors[0], 4)[0]) == 4


def test_the_size_of_the_catalogue_chooses() -> None:
    vectors = unit(np.random.default_rng(2), 1000)
    assert isinstance(build(vectors[:999], PARAMS), Exact)
    assert isinstance(build(vectors, PARAMS), Hnsw)


def test_hnsw_finds_95_percent_of_the_exact_120_and_more_with_more_effort() -> None:
    rng = np.random.default_rng(3)
    vectors, queries = unit(rng, 4000), unit(rng, 60)
    exact = Exact(vectors)

    def recall(ef_search: int) -> float:
        index = Hnsw(vectors, IndexParams(0, m=16, ef_construction=128, ef_search=ef_search))
        hits = [np.isin(index.search(q, 120)[0], exact.search(q, 120)[0]).mean() for q in queries]
        return float(np.mean(hits))

    assert recall(256) >= 0.95
    assert recall(120) <= recall(256) <= recall(1000)


def test_who_asks_for_more_than_ef_search_gets_as_many_as_well_found() -> None:
    rng = np.random.default_rng(4)
    vectors = unit(rng, 2000)
    exact, index = Exact(vectors), Hnsw(vectors, IndexParams(0, m=16, ef_construction=128, ef_search=40))
    found, expected = index.search(vectors[7], 200)[0], exact.search(vectors[7], 200)[0]
    assert len(found) == 200 and np.isin(found, expected).mean() > 0.9


def test_params_yaml_serves_120_candidates() -> None:
    assert load("index", IndexParams).ef_search >= 120
