"""Folds: what a state knows, and that it does not depend on how it got there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shops.small import START, as_event, random_events

from feature_repo.clock import DAY_US, MINUTE_US
from feature_repo.events import HISTORY
from feature_repo.features.stored import FOLDS, ITEM_ACTIVITY, SESSION_CONTEXT, SHOWN, USER_HISTORY
from feature_repo.folds.fold import Event, Fold


def run(fold: Fold, events: list[Event]) -> dict[str, Any]:
    state = fold.new()
    for event in events:
        state = fold.step(state, event)
    return fold.row(state)


def event(kind: str, item: str, at: int, **rest: Any) -> Event:
    return Event(START + at, kind, "u", rest.pop("session", "s"), item, **rest)


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
def test_a_state_restored_from_its_row_continues_as_if_never_stored(fold: Fold) -> None:
    events = [e for e in map(as_event, random_events(3, 300)) if e.type in fold.types]
    straight, stored = fold.new(), fold.new()
    for one in events:
        straight = fold.step(straight, one)
        stored = fold.step(fold.state(fold.row(stored)), one)
        assert fold.row(straight) == fold.row(stored)


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
def test_a_row_holds_exactly_the_declared_columns_and_shares_no_list_with_the_state(fold: Fold) -> None:
    events = [e for e in map(as_event, random_events(4, 60)) if e.type in fold.types]
    state = fold.new()
    for one in events:
        state = fold.step(state, one)
    row = fold.row(state)
    assert list(row) == [c.name for c in fold.columns]
    before = {k: list(v) if isinstance(v, list) else v for k, v in row.items()}
    fold.step(state, events[0])
    assert row == before


@given(st.permutations([0, 1, 2, 3, 4]))
def test_item_counts_do_not_depend_on_the_order_of_arrival(order: list[int]) -> None:
    events = [
        event("product_viewed", "a", 0),
        event("impression", "a", DAY_US // 2, position=4),
        event("click", "a", DAY_US),
        event("purchase_completed", "a", 3 * DAY_US),
        event("product_viewed", "a", 4 * DAY_US),
    ]
    straight, shuffled = run(ITEM_ACTIVITY, events), run(ITEM_ACTIVITY, [events[i] for i in order])
    assert shuffled == pytest.approx(straight, rel=1e-12)


def test_a_view_weighs_half_a_day_later_and_an_impression_as_its_position_is_examined() -> None:
    row = run(ITEM_ACTIVITY, [event("product_viewed", "a", 0), event("impression", "a", DAY_US, position=9)])
    assert row["views_24h"] == pytest.approx(0.5)
    assert row["exposure_7d"] == pytest.approx(1 / 3)
    assert (row["at"], row["first_ts"]) == (START + DAY_US, START)


def test_a_user_keeps_the_last_twenty_distinct_items_and_their_strongest_contact() -> None:
    events = [event("product_viewed", f"i{n}", n) for n in range(HISTORY + 5)]
    events += [event("add_to_cart", "i10", 100), event("product_viewed", "i10", 200)]
    row = run(USER_HISTORY, events)
    assert row["recent_items"] == [f"i{n}" for n in range(5, HISTORY + 5) if n != 10] + ["i10"]
    assert row["recent_kinds"][-1] == 2
    assert row["recent_ts"][-1] == START + 200


def test_a_user_s_visits_are_counted_and_the_last_contact_before_this_visit_is_kept() -> None:
    events = [
        event("product_viewed", "a", 0, session="one"),
        event("product_viewed", "b", 5, session="one"),
        event("purchase_completed", "b", DAY_US, session="two"),
    ]
    row = run(USER_HISTORY, events)
    assert (row["sessions"], row["visit_ids"]) == (2, ["one", "two"])
    assert row["visit_ts"] == [START + 5, START + DAY_US]
    assert row["bought_items"] == ["b"]


def test_intent_halves_every_ten_minutes_and_a_purchase_empties_its_place_in_the_cart() -> None:
    events = [
        event("add_to_cart", "a", 0),
        event("add_to_cart", "b", 0),
        event("remove_from_cart", "b", 1),
        event("purchase_completed", "a", 10 * MINUTE_US),
    ]
    row = run(SESSION_CONTEXT, events)
    assert row["intent"] == pytest.approx((3 + 3) / 2 + 5)
    assert (row["cart_items"], row["bought_items"], row["carts"]) == ([], ["a"], 2)


def test_a_page_is_one_request_or_one_instant_and_listed_items_keep_their_newest_place() -> None:
    events = [
        event("impression", "a", 0, request_id="r1", position=1),
        event("impression", "b", 1, request_id="r1", position=2),
        event("impression", "a", 9, position=7),
        event("impression", "c", 9),
    ]
    row = run(SESSION_CONTEXT, events)
    assert row["pages"] == 2
    assert row["shown_items"] == ["b", "a", "c"]
    assert row["shown_pages"] == [1, 2, 2]
    assert row["shown_positions"] == [2, 7, 0]
    assert row["shown_counts"] == [1, 2, 1]


def test_the_memory_of_what_was_shown_is_bounded_and_forgets_the_oldest() -> None:
    row = run(SESSION_CONTEXT, [event("impression", f"i{n}", n) for n in range(SHOWN + 3)])
    assert row["shown_items"] == [f"i{n}" for n in range(3, SHOWN + 3)]


moments = st.lists(
    st.tuples(
        st.integers(0, 4_000),
        st.sampled_from(["product_viewed", "add_to_cart", "purchase_completed", "remove_from_cart"]),
        st.sampled_from(["a", "b", "c", "d"]),
        st.sampled_from(["s", "t", "v"]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda one: one[0],
)


@given(moments, st.randoms(use_true_random=False))
def test_late_events_leave_the_state_that_they_would_have_left_in_time(drawn: list[Any], random: Any) -> None:
    in_time = [event(kind, item, at, session=visit) for at, kind, item, visit in sorted(drawn)]
    late = random.sample(in_time, len(in_time))
    for fold in (USER_HISTORY, SESSION_CONTEXT):
        rows = [run(fold, [e for e in events if e.type in fold.types]) for events in (in_time, late)]
        for name, value in rows[0].items():
            close = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
            assert rows[1][name] == close, (fold.name, name)


def test_a_removal_that_arrives_before_its_older_add_still_empties_the_place_in_the_cart() -> None:
    row = run(SESSION_CONTEXT, [event("remove_from_cart", "a", 9), event("add_to_cart", "a", 5)])
    assert row["cart_items"] == [] and row["left_items"] == ["a"]
    row = run(SESSION_CONTEXT, [event("remove_from_cart", "a", 9), event("add_to_cart", "a", 12)])
    assert row["cart_items"] == ["a"] and row["left_items"] == []


def test_a_row_stored_before_a_column_was_declared_is_read_with_the_column_s_beginning() -> None:
    row = run(USER_HISTORY, [event("product_viewed", "a", 0)])
    older = {name: value for name, value in row.items() if name != "bought_ts"} | {"carts_30d": None}
    assert USER_HISTORY.row(USER_HISTORY.state(older)) == row
