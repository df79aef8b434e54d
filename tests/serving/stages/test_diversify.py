"""The long tail's slot: who gets it, how often, and that a list stays a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shops.tiny_bundle import catalogue, matrix

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import EMPTY_SESSION, EMPTY_USER
from feature_repo.errors import ParamsError
from serving.explore.chance import draw
from serving.pipeline import visitor_of
from serving.stages.diversify import Diversify, diversify
from serving.types import Ranked, Request

NOW = 1_700_000_000_000_000
N = 40
PARAMS = Diversify(trade_off=0.0, category_weight=0.7, tail_share=0.25, tail_below=0.1)
DRAWS = np.arange(0, 1, 0.01).tolist()


def shop(**counts: Mapping[int, float]) -> ItemMatrix:
    """A catalogue in which item i has counts[name][i], else none."""
    found = matrix(catalogue(N))
    values = {name: np.zeros(N) for name in found.activity} | {"at": np.full(N, NOW)}
    for name, told in counts.items():
        values[name][list(told)] = list(told.values())
    found.apply(np.arange(N), values)
    return found


def ranked(rows: list[int]) -> Ranked:
    """Candidates `rows`, best first."""
    return Ranked(
        np.array(rows), -np.arange(len(rows), dtype=np.float32), ("ease",) * len(rows), np.zeros((0, 28))
    )


def asked(number: int, request: Request, **session: object) -> float | None:
    return draw(replace(request, session_id=f"visit {number}"), visitor_of(request, NOW, None, None))


def test_in_a_share_of_the_answers_the_last_slot_is_one_of_those_hardly_anybody_was_shown() -> None:
    items = shop(exposure_7d={row: 50.0 for row in range(N) if row not in (20, 25)} | {20: 1.0})
    shelves = [diversify(PARAMS, ranked(list(range(30))), items, 12, drawn) for drawn in DRAWS]
    assert {tuple(shelf.places[:-1]) for shelf in shelves} == {tuple(range(11))}
    last = Counter(shelf.places[-1] for shelf in shelves)
    assert last == {11: 75, 20: 13, 25: 12}
    for shelf in shelves:
        assert shelf.tail == (shelf.places[-1] != 11)
        assert shelf.propensity == (0.125 if shelf.tail else 0.75)


def test_what_stands_last_by_its_score_and_is_of_the_long_tail_keeps_both_chances() -> None:
    items = shop(exposure_7d={row: 50.0 for row in range(N) if row not in (11, 25)})
    shelves = [diversify(PARAMS, ranked(list(range(30))), items, 12, drawn) for drawn in DRAWS]
    chance = {shelf.places[-1]: shelf.propensity for shelf in shelves}
    assert chance == {11: 0.875, 25: 0.125}
    assert [shelf.tail for shelf in shelves] == [shelf.places[-1] == 25 for shelf in shelves]


@pytest.mark.parametrize("told", ["views_7d", "carts_7d", "purchases_30d"])
def test_a_shop_that_tells_of_no_impressions_counts_what_it_does_tell_of(told: str) -> None:
    items = shop(**{told: {row: 9.0 for row in range(N) if row != 25}})
    assert diversify(PARAMS, ranked(list(range(30))), items, 12, 0.0).places[-1] == 25
    seen = shop(
        **{told: {row: 9.0 for row in range(N) if row != 25}}, exposure_7d=dict.fromkeys(range(N), 1.0)
    )
    assert not diversify(PARAMS, ranked(list(range(30))), seen, 12, 0.0).tail


def test_on_the_first_day_nobody_is_of_the_long_tail() -> None:
    assert not diversify(PARAMS, ranked(list(range(30))), shop(), 12, 0.0).tail


def test_exposure_is_told_in_means_of_the_catalogue_and_a_snapshot_has_its_own() -> None:
    items = shop(exposure_7d=dict.fromkeys(range(N), 2.0) | {3: 6.0})
    assert items.exposure()[[3, 4]] == pytest.approx([6 / 2.1, 2 / 2.1])
    later = shop(exposure_7d=dict.fromkeys(range(N), 2.0) | {3: 0.0})
    fresh = items.updated(np.array([3]), {name: column[[3]] for name, column in later.activity.items()})
    assert (fresh.exposure()[3], items.exposure()[3]) == pytest.approx((0.0, 6 / 2.1))


def test_a_share_of_more_than_all_answers_is_refused() -> None:
    with pytest.raises(
        ParamsError, match=r"diversify\.tail_share: 25 is not allowed; allowed: a share, 0 to 1"
    ):
        replace(PARAMS, tail_share=25)


@given(
    candidates=st.permutations(range(N)).flatmap(lambda rows: st.integers(0, N).map(lambda n: rows[:n])),
    shown=st.lists(st.sampled_from([0.0, 0.3, 5.0, 80.0]), min_size=N, max_size=N),
    limit=st.integers(1, 100),
    drawn=st.none() | st.floats(0, 1, exclude_max=True),
    share=st.floats(0, 1),
    trade_off=st.sampled_from([0.0, 0.2]),
)
def test_a_list_stays_full_and_free_of_repeats_and_all_but_its_last_slot_are_not_drawn(
    candidates: list[int],
    shown: list[float],
    limit: int,
    drawn: float | None,
    share: float,
    trade_off: float,
) -> None:
    items = shop(exposure_7d=dict(enumerate(shown)))
    params = replace(PARAMS, tail_share=share, trade_off=trade_off)
    shelf = diversify(params, ranked(candidates), items, limit, drawn)
    plain = diversify(params, ranked(candidates), items, limit)
    assert len(shelf.places) == len(set(shelf.places)) == min(limit, len(candidates))
    assert shelf.places[:-1] == plain.places[:-1]
    assert 0 < shelf.propensity <= 1
    if limit == 1 or drawn is None or share == 0:
        assert shelf == plain
    if shelf.tail:
        assert items.exposure()[candidates[shelf.places[-1]]] < params.tail_below


def test_the_chances_of_all_that_may_stand_last_add_up_to_one() -> None:
    items = shop(exposure_7d={row: 50.0 for row in range(N) if row % 7})
    for share in (0.1, 0.25, 0.8, 1.0):
        params = replace(PARAMS, tail_share=share)
        shelves = (diversify(params, ranked(list(range(30))), items, 8, drawn) for drawn in DRAWS)
        chance = {shelf.places[-1]: shelf.propensity for shelf in shelves}
        assert sum(chance.values()) == pytest.approx(1.0)


def test_draws_are_uniform_over_visits_and_the_same_whenever_the_same_is_asked() -> None:
    request = Request("homepage_hero")
    drawn = [asked(number, request) for number in range(2000)]
    assert drawn == [asked(number, request) for number in range(2000)]
    told = np.array(drawn, np.float64)
    assert np.histogram(told, 10, (0, 1))[0].min() > 150
    assert len(set(drawn)) == 2000


def test_a_contact_a_page_and_another_surface_draw_anew_and_a_list_for_anybody_has_no_draw() -> None:
    request = Request("homepage_hero", session_id="s", user_id="u")
    rows = [EMPTY_SESSION, {**EMPTY_SESSION, "pages": 1}, {**EMPTY_SESSION, "at": NOW}]
    known = [draw(request, visitor_of(request, NOW, None, row)) for row in rows]
    known.append(draw(request, visitor_of(request, NOW, {**EMPTY_USER, "at": NOW}, None)))
    for other in (Request("pdp_fbt", session_id="s"), Request("homepage_hero", session_id="s", items=("a",))):
        known.append(draw(other, visitor_of(other, NOW, None, None)))
    assert len(set(known)) == 6
    nobody = Request("homepage_hero")
    assert draw(nobody, visitor_of(nobody, NOW, None, None)) is None


def test_the_hour_of_asking_moves_no_draw() -> None:
    request = Request("homepage_hero", session_id="s")
    drawn = {draw(request, visitor_of(request, NOW + hour * 3_600_000_000, None, None)) for hour in range(5)}
    assert len(drawn) == 1
