"""The assembler: 28 columns, everything that depends on now is brought to now, unknown stays unknown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.vectorize import CLASSES, COLUMNS, assemble
from feature_repo.assemble.visitor import Scores, Visitor, history
from feature_repo.clock import DAY_US
from feature_repo.features.stored import ITEM_ACTIVITY, SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds.fold import Event

NOW = 1_700_000_000_000_000
CATALOGUE: dict[str, list[object]] = {
    "price": [10.0, 20.0, 40.0, None],
    "margin": [0.2, None, 0.4, 0.1],
    "stock": [5, 0, None, 3],
    "available_from": [NOW - 10 * DAY_US, None, NOW + DAY_US, None],
    "category_path": ["Home/Kitchen/Pans", "Home/Kitchen/Pans", "Home/Bath", None],
    "brand": ["Ada", "Ada", "Bel", None],
}


def item_matrix() -> ItemMatrix:
    return ItemMatrix(["a", "b", "c", "d"], CATALOGUE)


def event(ts: int, kind: str, item: str, session: str = "s", **more: object) -> Event:
    return Event(ts, kind, "u", session, item, **more)  # type: ignore[arg-type]


def session_row(*events: Event) -> dict[str, object]:
    state = SESSION_CONTEXT.new()
    for e in events:
        state = SESSION_CONTEXT.step(state, e)
    return SESSION_CONTEXT.row(state)


def user_row(*events: Event) -> dict[str, object]:
    state = USER_HISTORY.new()
    for e in events:
        state = USER_HISTORY.step(state, e)
    return USER_HISTORY.row(state)


def columns(visitor: Visitor, matrix: ItemMatrix) -> dict[str, np.ndarray]:
    n = len(matrix)
    scores = Scores(*np.full((7, n), 0.1, np.float32))
    out = assemble(visitor, history(visitor, matrix), matrix, np.arange(n), scores)
    assert out.shape == (n, 28)
    assert out.dtype == np.float32
    return dict(zip(COLUMNS, out.T, strict=True))


def test_there_are_28_columns_in_five_classes_without_a_name_twice() -> None:
    assert len(COLUMNS) == len(set(COLUMNS)) == 28
    assert sum(len(names) for names in CLASSES.values()) == 28
    assert list(CLASSES) == ["user", "context", "item", "cross", "standing"]


def test_a_visitor_without_any_row_gets_finite_or_unknown_values_and_never_an_error() -> None:
    found = columns(Visitor(NOW, "homepage_hero", None), item_matrix())
    assert not any(np.isinf(values).any() for values in found.values())
    assert math.isnan(found["user_days_away"][0])
    assert np.isnan(found["days_since"]).all()
    assert found["ctr_7d"].tolist() == pytest.approx([0.02] * 4)


def test_unknown_price_margin_and_age_are_nan_not_zero() -> None:
    found = columns(Visitor(NOW, "homepage_hero", None), item_matrix())
    assert math.isnan(found["price_log"][3])
    assert math.isnan(found["margin"][1])
    assert math.isnan(found["age_days"][3])
    assert found["age_days"][0] == pytest.approx(10)


def test_decayed_counts_halve_between_the_last_event_and_now() -> None:
    matrix = item_matrix()
    state = ITEM_ACTIVITY.step(ITEM_ACTIVITY.new(), event(NOW - DAY_US, "product_viewed", "a"))
    matrix.apply(np.array([0]), {name: [value] for name, value in ITEM_ACTIVITY.row(state).items()})
    found = columns(Visitor(NOW, "homepage_hero", None), matrix)
    assert found["views_24h"][0] == pytest.approx(0.5)
    assert found["views_7d"][0] == pytest.approx(2 ** (-1 / 7))
    later = columns(Visitor(NOW + DAY_US, "homepage_hero", None), matrix)
    assert later["views_24h"][0] == pytest.approx(0.25)


def test_where_a_candidate_stands_is_the_share_of_those_with_less() -> None:
    matrix, rng = item_matrix(), np.random.default_rng(0)
    many = np.arange(4)
    scores = Scores(*rng.normal(size=(7, 4)).astype(np.float32))
    out = assemble(Visitor(NOW, "s", None), history(Visitor(NOW, "s", None), matrix), matrix, many, scores)
    found = dict(zip(COLUMNS, out.T, strict=True))
    for name, of in (("tower_place", scores.tower), ("covisit_place", scores.covisit)):
        assert found[name].tolist() == [(of < value).mean() for value in of]
    assert found["ctr_place"].tolist() == [0] * 4  # all equal


def test_what_was_shown_is_counted_in_pages_from_the_newest() -> None:
    row = session_row(
        event(NOW - 300, "impression", "a", request_id="p1", position=1),
        event(NOW - 300, "impression", "b", request_id="p1", position=2),
        event(NOW - 200, "impression", "b", request_id="p2", position=5),
    )
    found = columns(Visitor(NOW, "homepage_hero", "s", session=row), item_matrix())
    assert found["shown_pages_ago"][:2].tolist() == [1, 0]
    assert found["shown_position"][:2].tolist() == [1, 5]
    assert math.isnan(found["shown_pages_ago"][2])


def test_a_shopper_was_away_only_since_an_earlier_visit() -> None:
    first = user_row(event(NOW - DAY_US, "product_viewed", "a", "s"))
    here = columns(Visitor(NOW, "homepage_hero", "s", user=first), item_matrix())
    assert math.isnan(here["user_days_away"][0])
    assert here["days_since"].tolist() == pytest.approx([1.0, *[math.nan] * 3], nan_ok=True)
    away = columns(Visitor(NOW, "homepage_hero", "t", user=first), item_matrix())
    assert away["user_days_away"][0] == pytest.approx(1)
    second = user_row(
        event(NOW - 3 * DAY_US, "product_viewed", "a", "s"), event(NOW - 100, "product_viewed", "b", "t")
    )
    found = columns(Visitor(NOW, "homepage_hero", "t", user=second), item_matrix())
    assert found["user_days_away"][0] == pytest.approx(3)


def test_category_affinity_weighs_the_newest_contact_most() -> None:
    row = session_row(event(NOW - 20, "product_viewed", "c"), event(NOW - 10, "product_viewed", "a"))
    found = columns(Visitor(NOW, "homepage_hero", "s", session=row), item_matrix())
    assert found["category_affinity"][1] == pytest.approx(1 / 1.8)  # b shares a's category
    assert found["category_affinity"][2] == pytest.approx(0.8 / 1.8)
    assert found["category_affinity"][3] == 0  # unknown category is like nothing
    assert found["price_ratio"][0] == pytest.approx(math.log(10) - (math.log(10) + math.log(40)) / 2)


def test_history_holds_each_item_once_at_its_newest_contact() -> None:
    user = user_row(
        event(NOW - 900, "product_viewed", "a", "old"), event(NOW - 800, "product_viewed", "b", "old")
    )
    session = session_row(event(NOW - 10, "add_to_cart", "a"))
    past = history(
        Visitor(NOW, "cart_upsell", "s", user=user, session=session, anchors=("c", "zzz")), item_matrix()
    )
    assert past.rows.tolist() == [1, 0, 2]
    assert past.kinds.tolist() == [1, 2, 1]
    assert past.current.tolist() == [False, True, True]
    assert past.ages[1] == pytest.approx(1e-5)


@given(st.lists(st.sampled_from("abcd"), max_size=60), st.integers(0, 10 * DAY_US))
def test_no_history_ever_gives_an_infinite_value(items: list[str], wait: int) -> None:
    stamped = [event(NOW + i, "product_viewed", item) for i, item in enumerate(items)]
    visitor = Visitor(NOW + wait, "pdp_fbt", "s", user=user_row(*stamped), session=session_row(*stamped))
    found = columns(visitor, item_matrix())
    assert not any(np.isinf(values).any() for values in found.values())
