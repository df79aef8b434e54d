"""Where a candidate stands among the others."""

from __future__ import annotations

import doctest

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.assemble import standing as module
from feature_repo.assemble.standing import standing


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(module).failed == 0


@given(st.lists(st.one_of(st.floats(-3, 3, width=32), st.just(float("nan"))), min_size=1, max_size=40))
def test_it_is_the_share_of_those_with_less_in_whatever_order_they_are_asked(values: list[float]) -> None:
    row = np.array([values], np.float32)
    found = standing(row)[0]
    for share, value in zip(found, row[0], strict=True):
        less = ((row[0] < value) | np.isnan(row[0])).mean()
        assert np.isnan(share) if np.isnan(value) else share == np.float32(less)
    order = np.random.default_rng(0).permutation(len(values))
    np.testing.assert_array_equal(standing(row[:, order])[0], found[order])


def test_no_candidates_stand_nowhere() -> None:
    assert standing(np.empty((3, 0), np.float32)).shape == (3, 0)
