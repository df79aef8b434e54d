"""The ASOF store answers as Feast's stock DuckDB store does, on random histories and on every hard case."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops.offline import ASOF, Pair, Question, Shop, Wide, at


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def aging(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("aging"), ttl_hours=5)


USERS, HOURS = st.sampled_from(["a", "b", None]), st.integers(0, 12)
ITEMS = st.sampled_from([1, 2, None])
# Two rows of one key, instant and creation would have no defined winner.
WIDE = st.lists(
    st.builds(Wide, USERS, HOURS, st.none() | HOURS, st.none() | st.integers(0, 9)),
    max_size=25,
    unique_by=lambda w: w[:3],
)
PAIR = st.lists(st.builds(Pair, USERS, ITEMS, HOURS), max_size=25, unique=True)
QUESTIONS = st.lists(st.builds(Question, USERS, ITEMS, HOURS, USERS), min_size=1, max_size=12)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WIDE, PAIR, QUESTIONS, st.booleans(), st.booleans(), st.booleans())
def test_random_histories_get_the_stock_store_s_answers(
    shop: Shop, aging: Shop, wide: Any, pair: Any, questions: Any, aged: bool, learned: bool, service: bool
) -> None:
    chosen = aging if aged else shop
    chosen.write(wide, pair)
    chosen.both(questions, filter_by_created_timestamp=learned, service=service)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wide=WIDE, start=HOURS, end=HOURS)
def test_the_newest_rows_of_random_histories_are_the_stock_store_s(
    shop: Shop, wide: Any, start: int, end: int
) -> None:
    shop.write(wide)
    assert shop.newest(ASOF, start, end) == shop.newest("duckdb", start, end)


def test_of_rows_at_the_same_instant_the_one_created_last_wins(shop: Shop) -> None:
    shop.write([Wide("a", 1, 5, 10), Wide("a", 1, 9, 20), Wide("a", 1, 7, 30), Wide("a", 1, None, 40)])
    assert shop.both([Question("a", 1, 2)])[0]["count"] == 20


def test_a_late_row_for_an_earlier_instant_does_not_replace_a_newer_one(shop: Shop) -> None:
    shop.write([Wide("a", 5, 5, 10), Wide("a", 3, 20, 20)])
    answers = shop.both([Question("a", 1, 6), Question("a", 1, 4), Question("a", 1, 2)])
    assert [row["count"] for row in answers] == [10, 20, None]


def test_the_created_filter_shows_what_was_known_at_the_time(shop: Shop) -> None:
    """The row of hour 3 is learned at hour 20, after that of hour 5: it never wins from then on."""
    shop.write([Wide("a", 1, 1, 10), Wide("a", 3, 20, 20), Wide("a", 5, 9, 30), Wide("a", 4, None, 40)])
    asked = [Question("a", 1, hour) for hour in (0, 1, 4, 8, 9, 21)]
    answers = shop.both(asked, filter_by_created_timestamp=True)
    assert [row["count"] for row in answers] == [None, 10, 10, 10, 30, 30]
    assert [row["count"] for row in shop.both(asked)] == [None, 10, 40, 30, 30, 30]


def test_a_late_row_is_as_old_as_its_instant_says(aging: Shop) -> None:
    aging.write([Wide("a", 1, 5, 10)])
    answers = aging.both([Question("a", 1, 5), Question("a", 1, 7)], filter_by_created_timestamp=True)
    assert [row["count"] for row in answers] == [10, None]


def test_a_row_is_visible_at_its_own_instant_and_until_its_age_limit(aging: Shop) -> None:
    aging.write([Wide("a", 3, 3, 1)], [Pair("a", 1, 3)])
    hours = (3, 8, 8 + 1e-6, 3 - 1e-6)
    answers = aging.both([Question("a", 1, hour) for hour in hours])
    assert [row["count"] for row in answers] == [1, 1, None, None]
    assert [row["weight"] for row in answers] == [103.0, 103.0, None, None]


def test_a_composite_key_matches_on_all_its_parts_and_never_on_null(shop: Shop) -> None:
    shop.write([], [Pair("a", 1, 1), Pair("a", 2, 2), Pair("b", 1, 3), Pair("a", None, 4), Pair(None, 1, 4)])
    asked = [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("a", None), (None, 1)]
    answers = shop.both([Question(user, item, 9) for user, item in asked])
    assert [row["weight"] for row in answers] == [101.0, 202.0, 103.0, None, None, None]


def test_one_view_under_two_names_is_asked_by_two_keys(shop: Shop) -> None:
    shop.write([Wide("a", 1, 1, 10), Wide("b", 2, 2, 20)])
    answers = shop.both([Question("a", 1, 5, friend="b"), Question("b", 1, 1, friend="a")], service=True)
    assert [row["own__count"] for row in answers] == [10, None]
    assert [row["befriended__count"] for row in answers] == [20, 10]


def test_questions_that_repeat_are_all_answered_and_keep_their_order(shop: Shop) -> None:
    shop.write([Wide("a", 1, 1, 3)])
    asked = [Question("b", 1, 2), Question("a", 1, 2), Question("a", 1, 2), Question("a", 1, 0)]
    names = ["n0", "n1", "n2"]
    assert [row["names"] for row in shop.both(asked)] == [None, names, names, None]


def test_no_question_gets_no_answer_but_all_columns(shop: Shop) -> None:
    frame = pd.DataFrame(
        {"user_id": pd.array([], "string"), "event_timestamp": pd.to_datetime([], utc=True)},
    )
    table = shop.stores[ASOF].get_historical_features(frame, ["wide:count"]).to_arrow()
    assert (len(table), table.column_names) == (0, ["user_id", "event_timestamp", "count"])


@pytest.mark.parametrize("form", ["aware", "naive", "text", "elsewhere"])
def test_instants_of_questions_are_utc_in_every_form(shop: Shop, form: str) -> None:
    shop.write([Wide("a", 3, 3, 1)])
    moments = pd.Series([at(2.5), at(3)])
    asked = {
        "aware": moments,
        "naive": moments.dt.tz_localize(None),
        "text": moments.astype(str),
        "elsewhere": moments.dt.tz_convert("Asia/Tokyo"),
    }[form]
    frame = pd.DataFrame({"user_id": ["a", "a"], "event_timestamp": asked})
    for store in shop.stores.values():
        answers = store.get_historical_features(frame.copy(), ["wide:count"]).to_df()
        assert sorted(answers["count"].fillna(0)) == [0, 1]
