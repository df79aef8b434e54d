"""Known truths: planted lifts are found, nothing is not; a bent split is; CUPED narrows without bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from feature_repo.params import load
from monitoring.experiment.sequential import compare, mixture_rho2
from monitoring.trials.outcomes import METRICS, Outcome, People
from monitoring.trials.sizing import of_share, size
from monitoring.trials.verdicts import Trials, adjusted, claims, evidence, judge, statistics, tightest

PARAMS = load("trials", Trials)
AA_RUNS, LOOKS = 240, 10


def crowd(
    rng: np.random.Generator, n: int, names: Sequence[str] = ("control", "b"), lifts: Sequence[float] = ()
) -> People:
    """Visitors who differ in how much they do, the same before as after; variant i does `lifts[i]` more."""
    variant = rng.integers(0, len(names), n)
    lift = np.array([*lifts, *[0.0] * (len(names) - len(lifts))])[variant]
    keen = rng.gamma(0.7, 1 / 0.7, n)
    visits = 1 + rng.poisson(1.0, n)
    slots = 24.0 * visits
    clicks = rng.binomial(slots.astype(int), np.clip(0.04 * keen * (1 + lift), 0, 0.9))
    carted = rng.random(n) < np.clip(0.12 * keen * (1 + lift), 0, 0.95)
    bought = rng.random(n) < np.clip(0.06 * keen * (1 + lift), 0, 0.95)
    spent = bought * rng.lognormal(3.0, 0.8, n)
    events = visits + rng.poisson(4 * keen * (1 + lift) * visits)
    before = rng.poisson(3 * keen).astype(float)
    one = np.ones(n)
    tops: tuple[Any, ...] = (clicks, carted, bought, spent, events)
    bases = (slots, one, one, one, visits)
    told = {
        name: Outcome(np.asarray(top, float), np.asarray(base, float), before)
        for name, top, base in zip(METRICS, tops, bases, strict=True)
    }
    return People(names, variant, told)


def first(people: People, n: int) -> People:
    """As it was after n visitors."""
    told = {name: Outcome(one.top[:n], one.base[:n], one.before[:n]) for name, one in people.outcomes.items()}
    return People(people.names, people.variant[:n], told)


def even(names: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(names, 1 / len(names))


def test_of_experiments_without_a_difference_that_are_looked_at_ten_times_hardly_any_claims_one() -> None:
    """Three variants, five metrics: 10 comparisons a look; 5 % of runs may claim any at any look."""
    names = ("control", "b", "c")
    rng = np.random.default_rng(11)
    false = missed = peeked = 0
    for _ in range(AA_RUNS):
        people = crowd(rng, 6_000, names)
        looks = [judge(first(people, n), even(names), 0.1, PARAMS) for n in range(600, 6_001, 600)]
        assert not any(look.void for look in looks)
        lines = [line for look in looks for line in look.lines]
        false += any(line.verdict in ("better", "worse") for line in lines)
        missed += any(line.lower > 0 or line.upper < 0 for line in lines if line.metric == "conversion")
        peeked += any(peek(first(people, n)) for n in range(600, 6_001, 600))
    assert len(looks) == LOOKS and len(looks[-1].lines) == 10
    assert false / AA_RUNS <= PARAMS.alpha
    assert missed / AA_RUNS <= 2 * PARAMS.alpha  # an interval each for two variants
    assert peeked / AA_RUNS > 0.15  # what a z-test would have told at some look


def peek(people: People) -> bool:
    """Whether a z-test of the conversion of b, at 5 % and for one look, calls it different."""
    bought = people.outcomes["conversion"].top
    mine, control = bought[people.variant == 1], bought[people.variant == 0]
    error = np.sqrt(mine.var() / len(mine) + control.var() / len(control))
    return bool(abs(mine.mean() - control.mean()) > 1.96 * error)


def test_a_planted_lift_is_found_in_its_variant_and_the_other_variants_are_left_open() -> None:
    names = ("control", "b", "c", "d")
    people = crowd(np.random.default_rng(5), 120_000, names, (0.0, 0.25, 0.0, -0.25))
    found = judge(people, even(names), 0.1, PARAMS)
    says = {(line.variant, line.metric): line for line in found.lines}
    for metric in METRICS:
        assert says["b", metric].verdict == "better", metric
        assert says["d", metric].verdict == "worse", metric
        assert says["c", metric].verdict == "open", metric
    for metric in ("ctr", "add_to_cart_rate"):
        assert says["b", metric].lower < 0.25 < says["b", metric].upper


def test_an_experiment_of_the_planned_size_finds_the_effect_that_it_was_planned_for() -> None:
    rng, effect, found = np.random.default_rng(3), 0.3, 0
    n = int(size(of_share(0.2), effect, 2, 1.0, 1e4, PARAMS).any)
    runs = 60
    for _ in range(runs):
        variant = np.repeat([0, 1], n)
        top = (rng.random(2 * n) < np.where(variant == 1, 0.2 * (1 + effect), 0.2)).astype(float)
        only = {"conversion": Outcome(top, np.ones(2 * n), np.zeros(2 * n))}
        line = judge(People(("control", "b"), variant, only), even(("control", "b")), effect, PARAMS).lines[0]
        found += line.verdict == "better"
    assert found / runs >= PARAMS.power


def test_what_is_known_from_before_narrows_the_interval_and_moves_no_estimate() -> None:
    rng, with_it, without, widths = np.random.default_rng(8), [], [], []
    for _ in range(150):
        people = crowd(rng, 4_000, lifts=(0.0, 0.1))
        bare = {
            name: Outcome(one.top, one.base, np.zeros(len(one.top))) for name, one in people.outcomes.items()
        }
        lines = [
            next(
                line
                for line in judge(one, even(people.names), 0.1, PARAMS).lines
                if line.metric == "session_length"
            )
            for one in (people, People(people.names, people.variant, bare))
        ]
        with_it.append(lines[0].estimate)
        without.append(lines[1].estimate)
        widths.append((lines[0].upper - lines[0].lower) / (lines[1].upper - lines[1].lower))
        assert lines[0].narrowed < 0.75 and lines[1].narrowed == 1.0
    assert np.mean(widths) < 0.88
    assert np.std(with_it) < 0.9 * np.std(without)
    error = np.std(with_it) / np.sqrt(len(with_it))
    assert abs(np.mean(with_it) - np.mean(without)) < 4 * error
    top, _ = adjusted(people.outcomes["ctr"])
    assert top.sum() == pytest.approx(people.outcomes["ctr"].top.sum())


@pytest.mark.parametrize(("kept", "void"), [(1.0, False), (0.85, True)])
def test_a_variant_that_loses_visitors_is_found_by_the_split_and_claims_nothing(
    kept: float, void: bool
) -> None:
    rng = np.random.default_rng(2)
    people = crowd(rng, 20_000, lifts=(0.0, 0.5))
    stays = (people.variant == 0) | (rng.random(20_000) < kept)
    told = {
        name: Outcome(one.top[stays], one.base[stays], one.before[stays])
        for name, one in people.outcomes.items()
    }
    found = judge(People(people.names, people.variant[stays], told), even(people.names), 0.1, PARAMS)
    assert found.void is void
    assert {line.verdict for line in found.lines} == ({"void"} if void else {"better"})


def test_the_split_of_uneven_weights_is_judged_by_these_weights() -> None:
    rng = np.random.default_rng(4)
    people = crowd(rng, 10_000)
    people = People(people.names, (rng.random(10_000) < 0.1).astype(np.int64), people.outcomes)
    assert not judge(people, {"control": 0.9, "b": 0.1}, 0.1, PARAMS).void
    assert judge(people, {"control": 0.5, "b": 0.5}, 0.1, PARAMS).void


def test_the_evidence_is_over_one_in_alpha_exactly_where_the_interval_leaves_nought_out() -> None:
    rng, error = np.random.default_rng(6), tightest(0.1, 0.05)
    sides = set()
    for lift in np.linspace(0.0, 0.4, 60):
        clicks = (
            rng.binomial(24, 0.1, 2_000).astype(float),
            rng.binomial(24, 0.1 * (1 + lift), 2_000).astype(float),
        )
        base, seen = (statistics(one, np.full(2_000, 24.0)) for one in clicks)
        found = compare(seen, base, 0.0, 0.05, error)
        over = evidence(found.estimate, found.error, mixture_rho2(0.05, error**-2)) > 20
        assert over == (found.lower > 0 or found.upper < 0)
        sides.add(over)
    assert sides == {True, False}


def test_before_enough_visitors_did_it_nothing_is_said() -> None:
    found = judge(crowd(np.random.default_rng(1), 150, lifts=(0, 9)), even(("control", "b")), 0.1, PARAMS)
    assert {line.verdict for line in found.lines} == {"early"}
    assert all(line.told()["lower"] is None for line in found.lines)


def test_many_weak_comparisons_raise_the_bar_for_each() -> None:
    assert claims([30.0], 0.05) == [True]
    assert claims([30.0, *[1.0] * 9], 0.05) == [False] * 10
    assert claims([30.0] * 10, 0.05) == [True] * 10
