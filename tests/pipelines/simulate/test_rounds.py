"""A shop that learns from its own lists: without the long tail's slot they narrow, with it they do not."""

from __future__ import annotations

import numpy as np

from benchmarks.rounds import compared


def test_with_the_slot_the_loop_does_not_narrow_and_without_it_does() -> None:
    found = compared(skus=600, visits=2800, rounds=5, searched=0.3, seed=1)
    without, slot = (np.array(found[name]) for name in ("without", "with"))  # (round, Gini coverage CTR)
    coverage = 1
    assert without[1:, coverage].max() < 0.85 * without[0, coverage]
    assert slot[1:, coverage].min() > slot[0, coverage]
    assert slot[1:, 0].mean() < without[1:, 0].mean()  # more even, too
