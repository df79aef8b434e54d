"""One run of the tiny simulated shop, made once for all tests that read it."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np

from feature_repo import params
from pipelines.simulate.simulate import Simulate, Simulation, simulate

SEED = 7


def constants() -> Simulate:
    """params.yaml's `simulate`, tiny: 400 items."""
    return dataclasses.replace(params.load("simulate", Simulate), size="tiny")


@cache
def tiny_run() -> Simulation:
    """Its events, impressions, items and truth, for `SEED`; read it, do not change it."""
    return simulate(constants(), np.random.default_rng(SEED))
