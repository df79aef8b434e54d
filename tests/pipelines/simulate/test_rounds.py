"""A shop that learns from its own lists: without the long tail's slot they narrow, with it they do not."""

from __future__ import annotations

import numpy as np

from benchmarks.rounds import compared


def test_the_loop_does_not_narrow_with_the_slot_and_without_it_shows_ever_fewer_items() -> None:
    found = compared(skus=400, visits=1400, rounds=5, searched=0.3, seed=1)
    without, slot = (np.array(found[name]) for name in ("without", "with"))  # (round, Gini coverage CTR)
    assert without[1:, 1].mean() < 0.9 * without[0, 1]
    assert slot[-1, 1] >= slot[0, 1]
    assert (slot[1:, 1] > without[1:, 1]).all()
    assert slot[1:, 0].mean() < without[1:, 0].mean()
