"""The request path over a bundle of real parts: candidates, order, diversity, eligibility, never too few."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shops.tiny_bundle import catalogue, make, matrix

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import history
from feature_repo.clock import DAY_US
from feature_repo.features.stored import ITEM_ACTIVITY, SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds.fold import Event
from pipelines.protocol.chosen import settings
from serving.pipeline import Bundle, recommend, reorder, visitor_of
from serving.release import bundle
from serving.stages.bestsellers import bestsellers
from serving.stages.diversify import Diversify, diversify
from serving.stages.eligibility import eligibility
from serving.stages.fitted import fold_in, user_vector
from serving.stages.index import top
from serving.stages.odds import SOURCE, UNWEIGHTED, Clicks, pull_of
from serving.stages.rank import Untrained
from serving.stages.retrieve import NEWEST, Scored, retrieve
from serving.types import Filter, Ranked, Request

NOW = 1_700_000_000_000_000
N = 60


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    home: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_HOME", str(home))  # compiled rankers go below it
        yield bundle.load(make(home, N))


@pytest.fixture
def items() -> ItemMatrix:
    return matrix(catalogue(N))


def session(*contacts: tuple[str, str]) -> dict[str, object]:
    state = SESSION_CONTEXT.new()
    for i, (kind, item) in enumerate(contacts):
        state = SESSION_CONTEXT.step(state, Event(NOW - 1000 + i, kind, None, "s", item))
    return SESSION_CONTEXT.row(state)


def views(matrix: ItemMatrix, counts: dict[str, int]) -> None:
    for item, count in counts.items():
        state = ITEM_ACTIVITY.new()
        for i in range(count):
            state = ITEM_ACTIVITY.step(state, Event(NOW - 10_000 + i, "product_viewed", None, "s", item))
        row = ITEM_ACTIVITY.row(state)
        matrix.apply(np.array([matrix.row[item]]), {name: [value] for name, value in row.items()})


def test_twelve_distinct_slots_in_order_for_a_visitor_nobody_knows(
    release: Bundle, items: ItemMatrix
) -> None:
    request = Request("homepage_hero")
    served = recommend(request, release, visitor_of(request, NOW, None, None), items)
    assert [slot.slot for slot in served.slots] == list(range(12))
    assert len({slot.item_id for slot in served.slots}) == 12


def test_nothing_bought_in_the_cart_sold_out_excluded_or_of_this_page_is_shown(
    release: Bundle, items: ItemMatrix
) -> None:
    row = session(("purchase_completed", "item-1"), ("add_to_cart", "item-2"), ("product_viewed", "item-3"))
    request = Request("pdp_fbt", items=("item-3",), cart=("item-4",), exclude=("item-5",), limit=100)
    served = recommend(request, release, visitor_of(request, NOW, None, row), items)
    shown = {slot.item_id for slot in served.slots}
    assert shown.isdisjoint({"item-1", "item-2", "item-3", "item-4", "item-5"})
    assert shown.isdisjoint(f"item-{i}" for i in range(9, N, 10))  # stock 0
    assert len(shown) == N - 6 - 5  # and everything else is
    assert served.eligible.removed == {
        "item-1": "just bought",
        "item-2": "in the cart",
        "item-3": "is the item of this page",
        "item-4": "in the cart",
        "item-5": "excluded by the request",
    }


def test_a_purchase_of_an_earlier_visit_is_barred_within_the_window_and_brought_back_after_it(
    release: Bundle, items: ItemMatrix
) -> None:
    activity = ITEM_ACTIVITY.new()
    for sold in range(3):
        of_all = Event(NOW - DAY_US + sold, "purchase_completed", None, "s", "item-1")
        activity = ITEM_ACTIVITY.step(activity, of_all)
    bought = {name: [value] for name, value in ITEM_ACTIVITY.row(activity).items()}
    items.apply(np.array([items.row["item-1"]]), bought)
    user = USER_HISTORY.new()
    for item, days in (("item-1", 40), ("item-2", 90), ("item-3", 3)):
        event = Event(NOW - days * DAY_US, "purchase_completed", "u", f"visit {days}", item)
        user = USER_HISTORY.step(user, event)
    request = Request("homepage_hero", user_id="u", limit=100)
    row = session(("purchase_completed", "item-4"))
    visitor = visitor_of(request, NOW, USER_HISTORY.row(user), row)
    params = replace(release.retrieve, quotas={"reorder": 2}, bought_days=30.0)
    served = recommend(request, replace(release, retrieve=params), visitor, items)
    assert served.eligible.removed == {"item-3": "just bought", "item-4": "just bought"}
    reordered = np.flatnonzero(np.array(served.candidates.source) == "reorder")
    brought = [items.ids[served.candidates.rows[at]] for at in reordered]
    assert brought == ["item-1", "item-2"]  # all buy item-1 more often
    served = recommend(request, replace(release, retrieve=replace(params, bought_days=365.0)), visitor, items)
    assert set(served.eligible.removed) == {"item-1", "item-2", "item-3", "item-4"}
    served = recommend(request, replace(release, retrieve=replace(params, bought_days=0.0)), visitor, items)
    assert set(served.eligible.removed) == {"item-4"}


def test_a_visit_begins_with_what_attracts_most_and_a_contact_ends_that(
    release: Bundle, items: ItemMatrix
) -> None:
    attraction = np.where(np.arange(N) % 7 == 6, 0.5, -0.1).astype(np.float32)
    models = replace(release.models, attraction=attraction)
    pull = {"stranger": 1.0, "returning": 0.0, "visit": 0.0}
    clicks = Clicks(60, UNWEIGHTED.ranker | {"stranger": 0.0}, pull)
    mine = replace(release, models=models, clicks=clicks)
    request = Request("homepage_hero", limit=7)
    served = recommend(request, mine, visitor_of(request, NOW, None, None), items)
    assert {slot.source for slot in served.slots} == {SOURCE}
    assert [int(slot.item_id[5:]) % 7 for slot in served.slots] == [6] * 7
    begun = visitor_of(request, NOW, None, session(("product_viewed", "item-3")))
    assert recommend(request, mine, begun, items).slots == recommend(request, release, begun, items).slots


def test_an_order_of_one_source_is_its_quota_and_no_trees(release: Bundle, items: ItemMatrix) -> None:
    request = Request("homepage_hero")
    visitor = visitor_of(request, NOW, None, session(("product_viewed", "item-3")))
    order = settings("covisit", release.retrieve, release.diversify, UNWEIGHTED)
    alone = replace(release, ranker=Untrained(), retrieve=order.retrieve, diversify=order.diversify)
    served = recommend(request, alone, visitor, items)
    past = history(visitor, items)
    scores = Scored(order.retrieve, release.models, user_vector(release.models, visitor, past), past)
    best = [items.ids[row] for row in top(*scores.summed("covisit"), served.eligible.may, 12)]
    assert [slot.item_id for slot in served.slots] == best
    assert {slot.source for slot in served.slots} == {"covisit"}


def test_an_item_before_its_first_day_of_sale_is_not_eligible(items: ItemMatrix) -> None:
    unknown = {name: [None] for name in ("price", "margin", "stock", "category_path", "brand")}
    items = items.listed(np.array([7]), {**unknown, "available_from": [NOW + DAY_US]})
    request = Request("homepage_hero")
    mask = eligibility(request, visitor_of(request, NOW, None, None), items).mask
    later = eligibility(request, visitor_of(request, NOW + 2 * DAY_US, None, None), items).mask
    assert not mask[7]
    assert later[7]


def test_candidates_are_distinct_eligible_and_fill_k_where_the_catalogue_can(
    release: Bundle, items: ItemMatrix
) -> None:
    request = Request("homepage_hero")
    visitor = visitor_of(request, NOW, None, session(("product_viewed", "item-3")))
    may, mask = (found := eligibility(request, visitor, items)).may, found.mask
    params = replace(release.retrieve, k=40)
    found = retrieve(params, release.models, visitor, history(visitor, items), items, may)
    assert len(found.rows) == len(set(found.rows.tolist())) == 40
    assert mask[found.rows].all()
    everything = retrieve(release.retrieve, release.models, visitor, history(visitor, items), items, may)
    assert set(everything.rows.tolist()) == set(np.flatnonzero(mask).tolist())


def test_no_source_brings_more_than_its_quota(release: Bundle, items: ItemMatrix) -> None:
    request = Request("homepage_hero")
    visitor = visitor_of(request, NOW, None, session(("product_viewed", "item-3")))
    may = eligibility(request, visitor, items).may
    params = replace(release.retrieve, k=20, quotas={"ease": 4, "covisit": 3, "tower": 2, "popular": 50})
    found = retrieve(params, release.models, visitor, history(visitor, items), items, may)
    assert [found.source.count(name) for name in params.quotas] == [4, 3, 2, 11]


def test_an_item_item_score_is_the_sum_of_its_rows_weighed_by_recency(
    release: Bundle, items: ItemMatrix
) -> None:
    row = session(("product_viewed", "item-3"), ("product_viewed", "item-8"))
    visitor = visitor_of(Request("homepage_hero"), NOW, None, row)
    past = history(visitor, items)
    models = release.models
    scores = Scored(release.retrieve, models, user_vector(models, visitor, past), past)
    table, decay = models.covisit.toarray(), release.retrieve.covisit_decay
    every = scores.of(np.arange(len(items)))
    np.testing.assert_allclose(every.covisit, table[8] + decay * table[3], rtol=1e-5)
    rows, summed = scores.summed("covisit")
    assert rows.tolist() == np.flatnonzero(every.covisit).tolist()
    assert summed.tolist() == every.covisit[rows].tolist()
    np.testing.assert_allclose(every.covisit_last, table[8], rtol=1e-5)
    after = models.next.toarray()
    np.testing.assert_allclose(every.next, after[8] + NEWEST[-2] * after[3], rtol=1e-5)
    np.testing.assert_allclose(every.als, models.als_items @ fold_in(models.als_items, past.rows), rtol=1e-5)
    assert np.isnan(every.place).all()  # no retrieval, no place in its order


def test_folding_in_one_item_ranks_its_nearest_factors_first() -> None:
    factors = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    assert np.argsort(-(factors @ fold_in(factors, np.array([0])))).tolist() == [0, 1, 2]


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=30), st.integers(1, 40), st.data())
def test_top_is_the_head_of_a_stable_sort(values: list[float], k: int, data: st.DataObject) -> None:
    score = np.array(values)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    rows = top(np.arange(len(values)), score, Filter(lambda rows: mask[rows]), k)
    allowed = [i for i in range(len(values)) if mask[i] and score[i] > 0]
    assert rows == sorted(allowed, key=lambda i: -score[i])[:k]


def ranked(score: list[float]) -> Ranked:
    rows = np.argsort(-np.array(score), kind="stable")
    features = np.zeros((len(score), 28), np.float32)
    return Ranked(rows, np.array(score, np.float32)[rows], ("tower",) * len(score), features)


def test_without_trade_off_the_ranker_decides_alone(items: ItemMatrix) -> None:
    params = Diversify(trade_off=0, category_weight=0.7, tail_share=0, tail_below=0)
    assert diversify(params, ranked([5, 4, 3, 2, 1]), items, 3).places == [0, 1, 2]


def test_more_trade_off_means_more_categories_on_the_shelf(items: ItemMatrix) -> None:
    score = [float(100 - i // 3 - 40 * (i % 15 != 0)) for i in range(N)]  # one category leads by far
    shelves = []
    for trade_off in (0.0, 0.3, 0.6):
        found = ranked(score)
        chosen = diversify(Diversify(trade_off, 0.7, 0, 0), found, items, 4).places
        shelves.append(len(set(items.category[found.rows[chosen]].tolist())))
    assert shelves[0] == 1
    assert shelves == sorted(shelves)
    assert shelves[-1] > 1


def test_reorder_keeps_every_item_on_sale_once(release: Bundle, items: ItemMatrix) -> None:
    request = Request("category_sort", items=("item-9", "item-3", "item-7", "item-3", "unknown", "item-2"))
    served = reorder(request, release, visitor_of(request, NOW, None, None), items)
    assert sorted(slot.item_id for slot in served.slots) == [
        "item-2",
        "item-3",
        "item-7",
    ]  # item-9 is sold out


def test_bestsellers_are_the_most_viewed_and_still_fill_the_shelf(items: ItemMatrix) -> None:
    views(items, {"item-4": 9, "item-2": 5, "item-9": 50})  # item-9 is out of stock
    request = Request("homepage_hero")
    slots = bestsellers(request, visitor_of(request, NOW, None, None), items)
    assert [slot.item_id for slot in slots[:2]] == ["item-4", "item-2"]
    assert len(slots) == 12


def test_a_contact_changes_the_next_list(release: Bundle, items: ItemMatrix) -> None:
    request = Request("homepage_hero", session_id="s")
    before = recommend(request, release, visitor_of(request, NOW, None, None), items)
    row = session(("product_viewed", "item-3"))
    after = recommend(request, release, visitor_of(request, NOW, None, row), items)
    assert [s.item_id for s in before.slots] != [s.item_id for s in after.slots]


def test_an_item_that_came_after_the_fit_has_the_attraction_of_an_average_one() -> None:
    attraction = np.array([0.5, -0.5], np.float32)
    assert pull_of(attraction, np.array([1, 2, 0])).tolist() == [-0.5, 0.0, 0.5]
