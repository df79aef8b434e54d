"""How alike two lists are, against values worked out by hand and the sum that defines them."""

from __future__ import annotations

import numpy as np
import pytest

from monitoring.shadow.likeness import overlap, rbo


def defined(one: list[str], other: list[str], p: float) -> float:
    """RBO of two lists of one length that go on for ever as alike as they end: the sum itself."""
    n = len(one)
    agreements = [len(set(one[:d]) & set(other[:d])) / d for d in range(1, n + 1)]
    agreements += [agreements[-1]] * 2000
    return (1 - p) * sum(a * p**d for d, a in enumerate(agreements))


def test_equal_lists_are_one_and_strangers_nothing() -> None:
    items = [f"item-{i}" for i in range(12)]
    assert rbo(items, items) == pytest.approx(1.0) and overlap(items, items) == 1.0
    assert rbo(items, [f"other-{i}" for i in range(12)]) == 0.0
    assert rbo([], []) == overlap([], []) == 1.0 and rbo(items, []) == overlap([], items) == 0.0


def test_of_lists_of_one_length_it_is_the_sum_that_defines_it() -> None:
    rng = np.random.default_rng(3)
    pool = [f"item-{i}" for i in range(18)]
    for p in (0.5, 0.9, 0.98):
        for _ in range(50):
            one, other = (rng.permutation(pool)[:12].tolist() for _ in range(2))
            assert rbo(one, other, p) == pytest.approx(defined(one, other, p), abs=1e-9)


def test_the_head_weighs_more_than_the_tail_and_a_short_list_is_not_punished_for_its_end() -> None:
    items = [f"item-{i}" for i in range(12)]
    head, tail = [items[1], items[0], *items[2:]], [*items[:10], items[11], items[10]]
    assert rbo(items, head) < rbo(items, tail) < 1.0
    assert rbo(items, items[:6]) == pytest.approx(1.0)  # nothing seen of it speaks against more of the same
    assert overlap(items, items[:6]) == 0.5
