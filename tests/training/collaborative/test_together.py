"""What is wanted beside an item: baskets, looks before carts, the shop's links, all shrunk."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.collaborative.together import CartedParams, TogetherParams, fit_carted, fit_together
from training.dataset import Contacts

N = 6
BASKETS = TogetherParams(prior=2.0, popularity=0.0, most_items=50)
CARTED = CartedParams(prior=2.0, popularity=0.0, most_items=50, distance_decay=0.5)


def contacts(*visits: list[tuple[int, int]]) -> Contacts:
    """Each visit a list of (item, kind) in order."""
    rows = [
        (item, kind, at, number) for number, one in enumerate(visits) for at, (item, kind) in enumerate(one)
    ]
    columns = zip(*rows, strict=True) if rows else ([], [], [], [])
    item, kind, ts, session = (np.array(column, np.int64) for column in columns)
    return Contacts(item, kind, ts, session, session, np.zeros((len(item), 3), np.int64))


def test_looks_alone_are_no_basket() -> None:
    table = fit_together(contacts([(0, 1), (1, 1)], [(0, 2), (2, 3)]), N, BASKETS)
    assert sorted(zip(*table.nonzero(), strict=True)) == [(0, 2), (2, 0)]


def test_a_pair_of_one_basket_says_less_than_one_of_many() -> None:
    once = fit_together(contacts([(0, 2), (1, 2)], *[[(2, 2), (3, 2)]] * 20), N, BASKETS)
    assert 0 < once[0, 1] < once[2, 3] < 1


def test_with_lift_a_bestseller_does_not_stand_beside_everything() -> None:
    visits = [[(item, 2), (5, 2)] for item in (0, 1, 2, 3)] * 5 + [[(0, 2), (4, 2)]] * 4
    plain, lift = (
        fit_together(contacts(*visits), N, TogetherParams(2.0, popularity, 50)) for popularity in (0.0, 1.0)
    )
    assert plain[0, 5] > plain[0, 4] and lift[0, 4] > lift[0, 5]


def test_carted_after_a_look_has_a_direction_and_the_nearest_counts_most() -> None:
    table = fit_carted(contacts([(0, 1), (1, 2), (2, 2)], [(3, 2), (4, 1)]), N, CARTED)
    assert table[0, 1] > table[0, 2] > 0
    assert table[4, 3] == table[1, 0] == table[2, 0] == 0


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, N - 1), st.integers(1, 3)), min_size=1, max_size=6), max_size=8
    )
)
def test_nothing_goes_with_itself_and_every_value_is_a_chance(visits: list[list[tuple[int, int]]]) -> None:
    known = contacts(*visits)
    for table in (fit_together(known, N, BASKETS), fit_carted(known, N, CARTED)):
        assert table.shape == (N, N) and not table.diagonal().any()
        assert ((table.data > 0) & (table.data <= 1.0 + 1e-6)).all()
    baskets = fit_together(known, N, TogetherParams(0.0, 0.0, 50))
    assert ((baskets > 0) != (baskets > 0).T).nnz == 0
