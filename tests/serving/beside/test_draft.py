"""Team draft: each item once, each list's order kept, teams of one size, neither ahead by the draft alone."""

from __future__ import annotations

import random
from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.beside.draft import FIRST, NOBODY, SECOND, draft

LISTS = st.lists(st.integers(0, 30), unique=True, max_size=20)


def drafted(a: list[int], b: list[int], slots: int, seed: int = 0) -> list[tuple[int, str]]:
    coins = random.Random(seed)
    return draft(a, b, slots, lambda: coins.random() < 0.5)


@given(a=LISTS, b=LISTS, slots=st.integers(0, 25), seed=st.integers(0, 1000))
def test_each_item_stands_once_the_teams_keep_their_order_and_differ_by_one_at_most(
    a: list[int], b: list[int], slots: int, seed: int
) -> None:
    found = drafted(a, b, slots, seed)
    items = [item for item, _ in found]
    assert len(set(items)) == len(items) == min(slots, len(set(a) | set(b)))
    teams = Counter(team for _, team in found)
    assert abs(teams[FIRST] - teams[SECOND]) <= 1
    for of, name in ((a, FIRST), (b, SECOND)):
        places = [of.index(item) for item, team in found if team == name]
        assert places == sorted(places)
    # Nobody passes over anything: what a team takes is the best that its list still had.
    for at, (item, team) in enumerate(found):
        of = a if team == FIRST else b if team == SECOND else None
        before = set(items[:at])
        if of:
            assert item == next(one for one in of if one not in before)
    assert drafted(a, b, slots, seed) == found


@given(a=LISTS, seed=st.integers(0, 1000))
def test_of_two_equal_lists_every_slot_is_nobodys(a: list[int], seed: int) -> None:
    assert drafted(a, a, 12, seed) == [(item, NOBODY) for item in a[:12]]


@given(a=LISTS, b=LISTS, slots=st.integers(0, 12), seed=st.integers(0, 100))
def test_who_is_called_first_does_not_matter(a: list[int], b: list[int], slots: int, seed: int) -> None:
    coins = random.Random(seed)
    swapped = draft(b, a, slots, lambda: coins.random() >= 0.5)
    other = {FIRST: SECOND, SECOND: FIRST, NOBODY: NOBODY}
    assert [(item, other[team]) for item, team in swapped] == drafted(a, b, slots, seed)


@given(a=LISTS, b=LISTS, seed=st.integers(0, 100))
def test_what_does_not_fit_is_passed_over_by_both(a: list[int], b: list[int], seed: int) -> None:
    coins, used = random.Random(seed), Counter[int]()

    def take(item: int) -> None:
        used[item % 3] += 1

    found = draft(a, b, 12, lambda: coins.random() < 0.5, lambda item: used[item % 3] < 2, take)
    assert all(count <= 2 for count in used.values()) and sum(used.values()) == len(found)


FULL = st.permutations(range(8))


@settings(max_examples=50)
@given(a=FULL, b=FULL)
def test_neither_team_is_ahead_over_all_coins_where_every_item_is_as_good(a: list[int], b: list[int]) -> None:
    """Whatever the two share: six slots toss at most six coins, and all throws are tried."""
    ahead = 0.0
    for throws in product((False, True), repeat=6):
        coins = iter(throws)
        for at, (_, team) in enumerate(draft(a, b, 6, lambda coins=coins: next(coins))):  # type: ignore[misc]
            ahead += {FIRST: 1, SECOND: -1, NOBODY: 0}[team] / (1 + at)  # a first slot is looked at most
    assert ahead == pytest.approx(0.0, abs=1e-9)


def test_a_slot_is_as_often_the_one_team_s_as_the_other_s() -> None:
    a, b = list(range(20)), [*range(20, 40)]
    first = [drafted(a, b, 12, seed) for seed in range(4000)]
    for slot in range(12):
        share = sum(one[slot][1] == FIRST for one in first) / len(first)
        assert share == pytest.approx(0.5, abs=0.04)
