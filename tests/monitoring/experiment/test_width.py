"""The width of the sequence: worked by hand, and the numbers of another implementation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from monitoring.experiment.sequential import mixture_rho2, price_of_looking, width


@pytest.mark.parametrize(
    ("t", "rho2", "alpha", "expected"),
    [
        # sqrt(2 * 2 / 10 * log(sqrt(2) / 0.05)) = sqrt(0.4 * 3.342306) = 1.156254
        (10, 0.1, 0.05, 1.156254),
        # sqrt(2 * 101 / 10000 * log(sqrt(101) / 0.05)) = sqrt(0.0202 * 5.303292) = 0.327302
        (100, 1.0, 0.05, 0.327302),
        # sqrt(2 * 2 / 1 * log(sqrt(2) / 0.01)) = sqrt(4 * 4.951744) = 4.450503
        (1, 1.0, 0.01, 4.450503),
    ],
)
def test_the_width_is_the_published_formula(t: float, rho2: float, alpha: float, expected: float) -> None:
    assert width(t, rho2, alpha) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.001])
def test_the_width_is_smallest_where_it_was_tuned_to_be(alpha: float) -> None:
    best = mixture_rho2(alpha, tightest_at=2500.0)
    others = best * np.exp(np.linspace(-1, 1, 201))
    assert np.argmin(width(2500.0, others, alpha)) == 100


def test_a_sequence_is_wider_than_an_interval_for_one_look_but_not_by_much() -> None:
    t = np.geomspace(100, 100_000, 50)
    ratio = width(t, mixture_rho2(0.05, 5000.0), 0.05) * np.sqrt(t) / norm.isf(0.025)
    assert ((ratio > 1.4) & (ratio < 3.5)).all()


# SequentialTwoSidedTTest of gbstats 0.8.0, which needs numpy < 2: half the interval over sqrt(variance n),
# and rho^2 times the 5,000 observations that it is tuned for.
GBSTATS = [
    (0.05, 100, 0.669439),
    (0.05, 1_000, 0.106375),
    (0.05, 5_000, 0.042924),
    (0.05, 10_000, 0.030615),
    (0.05, 50_000, 0.014497),
    (0.05, 100_000, 0.010552),
    (0.01, 5_000, 0.050510),
    (0.1, 5_000, 0.039088),
]
TUNING = {0.05: 7.936154601737567, 0.01: 11.533741340715222, 0.1: 6.328859605296235}


@pytest.mark.parametrize(("alpha", "n", "expected"), GBSTATS)
def test_the_width_is_that_of_another_implementation(alpha: float, n: int, expected: float) -> None:
    assert width(n, TUNING[alpha] / 5_000, alpha) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("alpha", "n", "expected"), GBSTATS)
def test_an_exact_tuning_is_nowhere_far_from_the_usual_approximation(
    alpha: float, n: int, expected: float
) -> None:
    """gbstats takes -2 log a + log(1 - 2 log a) for the root of Lambert's equation; ours is the root."""
    assert width(n, mixture_rho2(alpha, 5_000.0), alpha) == pytest.approx(expected, rel=0.015)


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0.05, 8.211968062), (0.1, 6.638352068), (0.01, 11.756371222)]
)
def test_the_tuning_is_the_root_of_its_equation(alpha: float, expected: float) -> None:
    tuned = mixture_rho2(alpha, 1.0)
    assert tuned == pytest.approx(expected, abs=1e-9)
    assert np.log1p(tuned) - 2 * np.log(alpha) == pytest.approx(tuned)


def test_looking_costs_two_to_three_times_the_traffic_of_one_look() -> None:
    """At its tightest the sequence is 1.5486 times as wide as an interval for one look, at alpha 5 %."""
    assert price_of_looking(0.05) == pytest.approx(1.5486**2, rel=1e-3)
    tightest = width(5_000, mixture_rho2(0.05, 5_000.0), 0.05) * np.sqrt(5_000)
    assert price_of_looking(0.05) == pytest.approx((tightest / norm.isf(0.025)) ** 2)
