"""One run of the tiny simulated shop, made once for all tests that read it."""

from __future__ import annotations

from functools import cache

import numpy as np

from feature_repo import params
from pipelines.simulate.simulate import Simulate, Simulation, Size, simulate

SEED = 7


def constants() -> Simulate:
    """params.yaml's `simulate`."""
    return params.load("simulate", Simulate)


def tiny() -> Size:
    """400 items."""
    return constants().size_of("tiny")


@cache
def tiny_run() -> Simulation:
    """Its events, impressions, items and truth, for `SEED`; read it, do not change it."""
    return simulate(constants(), tiny(), np.random.default_rng(SEED))
