"""Sources that do not score the catalogue bring what they would if they did, and lists stay full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops.tiny_bundle import catalogue, make, matrix

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.orders import Order, best
from feature_repo.assemble.visitor import history
from feature_repo.clock import DAY_US
from feature_repo.features.stored import SESSION_CONTEXT
from feature_repo.folds.fold import Event
from serving.pipeline import Bundle, recommend, visitor_of
from serving.release import bundle
from serving.stages.eligibility import eligibility
from serving.stages.fitted import user_vector
from serving.stages.index import Exact, Hnsw, IndexParams
from serving.stages.odds import SOURCE
from serving.stages.retrieve import Sources
from serving.stages.steering import Steering
from serving.types import Request

NOW = 1_700_000_000_000_000
N = 400
GRAPH = IndexParams(exact_below=0, m=16, ef_construction=128, ef_search=128)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    home: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_HOME", str(home))
        yield bundle.load(make(home, N))


def seen(items: list[int]) -> dict[str, object]:
    state = SESSION_CONTEXT.new()
    for step, item in enumerate(items):
        SESSION_CONTEXT.step(state, Event(NOW - 1000 + step, "product_viewed", None, "s", f"item-{item}"))
    return SESSION_CONTEXT.row(state)


def touched(seed: int) -> ItemMatrix:
    """Random views, a third of the items new."""
    items, rng = matrix(catalogue(N)), np.random.default_rng(seed)
    values = {name: np.zeros(N, column.dtype) for name, column in items.activity.items()}
    values["at"][:], values["views_7d"][:] = NOW - 1, rng.integers(0, 9, N)
    values["first_ts"][:] = NOW - np.where(rng.random(N) < 0.3, 1, 40) * DAY_US
    items.apply(np.arange(N), values)
    return items


def dense(
    release: Bundle, items: ItemMatrix, request: Request, row: dict[str, object]
) -> dict[str, list[int]]:
    """Every source by scores of the whole catalogue."""
    models, params = release.models, release.retrieve
    visitor = visitor_of(request, NOW, None, row)
    past, mask = history(visitor, items), eligibility(request, visitor, items).mask
    user = user_vector(models, visitor, past)
    place = np.where(past.current, 1.0, params.earlier_weight)
    ago = np.arange(len(past.rows))[::-1]
    taste = models.als_items[past.rows]
    taste = taste.T @ np.linalg.solve(taste @ taste.T + np.eye(len(taste)), np.ones(len(taste)))
    tower = models.item_vectors @ user + 2.0
    young = items.born() > NOW - params.fresh_days * DAY_US
    scores = {
        "covisit": (params.covisit_decay**ago * place) @ models.covisit[past.rows].toarray(),
        "ease": (params.ease_decay**ago * place) @ models.ease[past.rows].toarray(),
        "als": models.als_items @ taste,
        "tower": tower,
        "fresh": tower * young,
        "popular": items.popularity() + 1e-9,
        SOURCE: models.attraction,
    }
    scores = {
        name: np.where(mask & (score > 0), score, 0.0).astype(np.float32) for name, score in scores.items()
    }
    return {
        name: [row for row in np.argsort(-score, kind="stable").tolist() if score[row] > 0][: params.k]
        for name, score in scores.items()
    }


@settings(max_examples=40, deadline=None)
@given(
    contacts=st.lists(st.integers(0, N - 1), max_size=25, unique=True),
    excluded=st.lists(st.integers(0, N - 1), max_size=9),
    few=st.booleans(),
    seed=st.integers(0, 5),
)
def test_every_source_brings_what_it_would_by_scores_of_the_whole_catalogue(
    release: Bundle, contacts: list[int], excluded: list[int], few: bool, seed: int
) -> None:
    """Whatever a filter leaves: looked at row by row, or met among all."""
    items, row = touched(seed), seen(contacts)
    request = Request("homepage_hero", exclude=tuple(f"item-{one}" for one in excluded))
    expected = dense(release, items, request, row)
    visitor = visitor_of(request, NOW, None, row)
    rules = Steering(rules=("all",), few=np.arange(N) if few else None)
    may = eligibility(request, visitor, items, steering=rules).may
    sources = Sources(release.retrieve, release.models, visitor, history(visitor, items), items, may)
    for name, rows in expected.items():
        assert sources.best(name) == pytest.approx(rows), name


@pytest.mark.parametrize("graph", [False, True])
def test_a_list_is_full_and_near_when_95_percent_of_a_category_are_sold_out(
    release: Bundle, graph: bool
) -> None:
    models, table = release.models, catalogue(N)
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(2, 64))
    units = centres[np.arange(N) % 2] + rng.normal(scale=0.3, size=(N, 64))
    units = (units / np.linalg.norm(units, axis=1, keepdims=True)).astype(np.float32)
    models = replace(models, item_vectors=units, index=Hnsw(units, GRAPH) if graph else Exact(units))
    items, mine = matrix(table), np.arange(0, N, 2)
    left = rng.choice(mine, len(mine) // 20, replace=False)
    gone = np.setdiff1d(mine, left)
    unknown = {name: [None] * len(gone) for name in ("price", "margin", "category_path", "brand")}
    items = items.listed(gone, unknown | {"stock": [0] * len(gone), "available_from": [None] * len(gone)})
    params = replace(release.retrieve, k=8, quotas={"tower": 8})
    shop = replace(release, models=models, retrieve=params)
    request = Request("homepage_hero", limit=8)
    visitor = visitor_of(request, NOW, None, seen([int(row) for row in mine[:6]]))
    served = recommend(request, shop, visitor, items)
    assert len(served.slots) == 8
    assert (items.stock[served.candidates.rows] != 0).all()


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(0, 4), max_size=60), k=st.integers(0, 70))
def test_the_best_are_the_head_of_a_stable_sort(values: list[int], k: int) -> None:
    expected = np.argsort(-np.array(values, np.int64), kind="stable")[:k].tolist()
    assert best(np.array(values, np.int64), k).tolist() == expected


def test_an_order_gives_every_row_once_and_sorts_no_more_than_is_asked() -> None:
    values = np.random.default_rng(0).integers(0, 50, 5000)
    rows = np.arange(5000) * 2
    order = Order(rows, values)
    first = next(order.parts())
    every = np.concatenate(list(order.parts()))
    assert first.tolist() == every[: len(first)].tolist() and len(first) == 512
    assert every.tolist() == rows[np.argsort(-values, kind="stable")].tolist()
