"""The sequential test: hand-worked widths, exact sums, error rates by simulation of continuous watching."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from feature_repo.errors import ParamsError
from feature_repo.params import load
from monitoring.experiment.guard import Move, RolloutParams, Step, decide, judge
from monitoring.experiment.rehearsal import Shoppers, first_true, rehearse, watched
from monitoring.experiment.sequential import ArmStatistics, compare, mixture_rho2, srm_evidence, width
from serving.release.state import Health

PARAMS = load("rollout", RolloutParams)
CLUSTERED = Shoppers(ctr=0.05, impressions=30.0, clustering=0.1)
ARGS = (PARAMS.margin, PARAMS.alpha_per_step, PARAMS.tightest_error)


def arm(rng: np.random.Generator, ctr: float, user_days: int) -> ArmStatistics:
    shown = 12 * rng.geometric(0.4, user_days)
    clicks = rng.binomial(shown, rng.beta(9 * ctr, 9 * (1 - ctr), user_days))
    return sum(
        (ArmStatistics.of(int(x), int(n)) for x, n in zip(clicks, shown, strict=True)), ArmStatistics()
    )


def test_statistics_of_parts_add_up_to_those_of_the_whole() -> None:
    days = [ArmStatistics.of(x, n) for x, n in ((0, 12), (3, 36), (1, 24), (0, 48))]
    whole = ArmStatistics(4, 4, 4, 120, 10, 4320, 132)
    assert days[0] + (days[1] + days[2]) + days[3] == sum(days, ArmStatistics()) == whole
    assert whole - days[0] == days[1] + days[2] + days[3]


def test_the_variance_is_that_of_residuals_between_shoppers() -> None:
    clicks, shown = np.array([0, 3, 1, 0]), np.array([12, 36, 24, 48])
    whole = ArmStatistics(4, 4, 4, 120, 10, 4320, 132)
    residuals = clicks - 4 / 120 * shown
    assert whole.shopper_variance == pytest.approx(residuals.var(ddof=1) / shown.mean() ** 2)


def test_clicks_that_come_together_widen_the_interval() -> None:
    independent = watched(
        np.random.default_rng(1), replace(CLUSTERED, clustering=0.0), 0.0, np.array([5000]), 1
    )
    clustered = watched(np.random.default_rng(1), CLUSTERED, 0.0, np.array([5000]), 1)
    widths = [
        float((seen.upper - seen.lower)[0, 0])
        for seen in (compare(arm, arm, *ARGS) for arm in (independent, clustered))
    ]
    assert widths[1] > 1.8 * widths[0]


def test_the_bounds_exclude_the_margin_exactly_when_delta_differs_from_zero() -> None:
    rng = np.random.default_rng(2)
    agreed = set()
    for drop in np.linspace(-0.9, 0.6, 60):
        canary, champion = arm(rng, 0.08 * (1 - drop), 400), arm(rng, 0.08, 1200)
        seen = compare(canary, champion, *ARGS)
        delta = canary.ctr - 0.97 * champion.ctr
        canary_variance = max(canary.shopper_variance, champion.shopper_variance) / canary.shoppers
        variance = canary_variance + 0.97**2 * champion.shopper_variance / champion.shoppers
        t = champion.ctr**2 / variance
        half = champion.ctr * width(t, mixture_rho2(PARAMS.alpha_per_step, 2500.0), PARAMS.alpha_per_step)
        verdict = (bool(seen.upper < -0.03), bool(seen.lower > -0.03))
        assert verdict == (delta < -half, delta > half)
        agreed.add(verdict)
    assert len(agreed) == 3


def test_a_champion_without_clicks_bounds_nothing() -> None:
    nothing, something = (
        ArmStatistics(100, 100, 0, 1200, 0, 14400, 0),
        arm(np.random.default_rng(3), 0.05, 100),
    )
    for canary, champion in ((something, nothing), (nothing, nothing), (ArmStatistics(), ArmStatistics())):
        seen = compare(canary, champion, *ARGS)
        assert (seen.lower, seen.upper) == (-np.inf, np.inf)


def test_a_canary_that_nobody_clicks_is_rolled_back() -> None:
    nothing, champion = (
        ArmStatistics(300, 300, 0, 9000, 0, 400_000, 0),
        arm(np.random.default_rng(4), 0.05, 2700),
    )
    assert judge(nothing, champion, 4000, PARAMS).harmful


def test_nothing_is_judged_before_the_burn_in() -> None:
    few, many = ArmStatistics(49, 49, 0, 9000, 0, 2_000_000, 0), arm(np.random.default_rng(5), 0.05, 2000)
    assert not judge(few, many, 1, PARAMS).harmful
    assert not judge(few, many, 1, PARAMS).held


@pytest.fixture(scope="module")
def at_the_margin() -> tuple[ArmStatistics, ArmStatistics]:
    """300 canaries whose true drop is the margin, clicks clustered, 60 looks at 100 user-days each."""
    rng = np.random.default_rng(6)
    looks = np.full(60, 100)
    return watched(rng, CLUSTERED, 0.03, looks, 300), watched(rng, CLUSTERED, 0.0, looks, 300)


def test_watching_all_the_time_rolls_back_at_most_alpha_of_canaries_at_the_margin(
    at_the_margin: tuple[ArmStatistics, ArmStatistics],
) -> None:
    canary, champion = at_the_margin
    harmful = judge(canary, champion, 10**9, PARAMS).harmful.any(axis=1).mean()
    harmless = judge(canary, champion, 10**9, PARAMS).harmless.any(axis=1).mean()
    assert harmful <= PARAMS.alpha_per_step
    assert harmless <= PARAMS.alpha_per_step


@pytest.mark.parametrize("unit", ["impression", "shopper"])
def test_a_z_test_that_is_peeked_at_exceeds_its_alpha(
    at_the_margin: tuple[ArmStatistics, ArmStatistics], unit: str
) -> None:
    canary, champion = at_the_margin
    if unit == "impression":
        variances = [a.ctr * (1 - a.ctr) / a.impressions for a in (canary, champion)]
    else:
        variances = [a.shopper_variance / a.shoppers for a in (canary, champion)]
    z = (canary.ctr - 0.97 * champion.ctr) / np.sqrt(variances[0] + 0.97**2 * variances[1])
    false_alarms = (z < norm.ppf(0.05)).any(axis=1).mean()
    assert false_alarms > (0.5 if unit == "impression" else 0.15)


@pytest.mark.parametrize("cluster", ["shopper", "user-day"])
def test_shoppers_who_come_back_fake_certainty_unless_the_variance_is_between_shoppers(cluster: str) -> None:
    rng, people, days = np.random.default_rng(13), 500, np.arange(1, 15)

    def loyal(ctr: float) -> ArmStatistics:
        """200 runs of 500 shoppers, each with a liking of her own, 30 slots on each of 14 days."""
        likes = rng.beta(9 * ctr, 9 * (1 - ctr), (200, people, 1))
        daily = rng.binomial(30, np.broadcast_to(likes, (200, people, 14)))  # (runs, shoppers, days)
        totals = daily.cumsum(axis=2)
        clicks, user_days = totals.sum(axis=1), np.broadcast_to(people * days, (200, 14))
        if cluster == "user-day":
            squares = (daily**2).sum(axis=1).cumsum(axis=1)
            sums = (user_days, clicks, 30 * user_days, squares, 900 * user_days, 30 * clicks)
        else:
            shown, everybody = 30 * days, np.full((200, 14), people)
            squares = (totals**2).sum(axis=1)
            sums = (everybody, clicks, everybody * shown, squares, everybody * shown**2, clicks * shown)
        return ArmStatistics(user_days, *sums)

    judged = judge(loyal(0.05 * 0.97), loyal(0.05), 10**9, PARAMS)
    wrong = [flags.any(axis=1).mean() for flags in (judged.harmful, judged.harmless)]
    assert max(wrong) <= PARAMS.alpha_per_step if cluster == "shopper" else min(wrong) > 0.1


def test_good_canaries_advance_and_bad_ones_are_rolled_back() -> None:
    rng, step = np.random.default_rng(7), PARAMS.steps[1]
    same, worse = (rehearse(rng, CLUSTERED, drop, step, PARAMS, runs=150, looks=40) for drop in (0.0, 0.3))
    assert same.rolled_back <= PARAMS.alpha_per_step
    assert same.advanced > 0.85
    assert worse.rolled_back == 1.0
    assert worse.rollback_user_days is not None
    assert worse.rollback_user_days <= 0.25 * step.user_days


def test_the_rehearsed_user_days_have_the_moments_asked_for() -> None:
    day, chance = CLUSTERED.cells(drop=0.2)
    assert chance.sum() == pytest.approx(1.0)
    assert day.impressions @ chance == pytest.approx(30.0, rel=1e-3)
    assert (day.clicks @ chance) / (day.impressions @ chance) == pytest.approx(0.04, rel=1e-3)
    assert replace(CLUSTERED, clustering=0.0).design_effect == pytest.approx(1.0, rel=1e-3)
    many = watched(np.random.default_rng(8), CLUSTERED, 0.0, np.array([200_000]), 1)
    one = ArmStatistics(*(np.ravel(value)[0] for value in vars(many).values()))
    seen = Shoppers.measured(one)
    assert (seen.ctr, seen.impressions, seen.clustering) == pytest.approx((0.05, 30.0, 0.1), rel=0.05)


def test_a_split_as_asked_is_not_called_a_mismatch_however_long_it_is_watched() -> None:
    rng = np.random.default_rng(9)
    canary = np.cumsum(rng.binomial(50, 0.1, size=(1000, 200)), axis=1)
    visitors = 50 * np.arange(1, 201)
    evidence = srm_evidence(canary, visitors - canary, 0.1)
    assert (evidence.max(axis=1) > 20).mean() <= 1 / 20
    assert (evidence.max(axis=1) > 1e4).mean() <= 1e-3


def test_a_wrong_split_is_found() -> None:
    rng = np.random.default_rng(10)
    canary = rng.binomial(20_000, 0.12, size=200)
    assert (srm_evidence(canary, 20_000 - canary, 0.1) > 1e4).mean() == 1.0
    assert first_true(np.array([[False, True, True], [False, False, False]])).tolist() == [1, 3]


HEALTHY = Health(requests=10_000, errors=3, empty=0, p99_ms=8.0)


@pytest.mark.parametrize(
    ("health", "slow_looks", "reason"),
    [
        (replace(HEALTHY, errors=101), 0, r"101 errors in 10,000 requests \(limit 1.0%\)"),
        (Health(requests=6, errors=6), 0, "6 errors in 6 requests"),
        (replace(HEALTHY, empty=500), 0, "500 empty answers"),
        (replace(HEALTHY, p99_ms=99.0), 10, "p99 99.0 ms against 8.0 ms of the champion, 10 looks in a row"),
    ],
)
@pytest.mark.parametrize("percent", [10, 100])
def test_hard_switches_roll_back_at_once(health: Health, slow_looks: int, reason: str, percent: int) -> None:
    nobody = ArmStatistics()
    decision = decide(Step(percent, 100), nobody, nobody, health, HEALTHY, slow_looks, PARAMS)
    assert decision.move is Move.ROLLBACK
    assert re.search(reason, decision.reason)


def test_few_failures_and_a_slow_moment_trip_nothing() -> None:
    nobody = ArmStatistics()
    shaky = Health(requests=10, errors=5, empty=5, p99_ms=500.0)
    assert decide(Step(10, 100), nobody, nobody, shaky, HEALTHY, 9, PARAMS).move is Move.HOLD


def test_a_split_that_is_off_rolls_back() -> None:
    off = ArmStatistics(user_days=2000, shoppers=2000), ArmStatistics(user_days=8000, shoppers=8000)
    decision = decide(Step(10, 4000), *off, HEALTHY, HEALTHY, 0, PARAMS)
    assert decision.move is Move.ROLLBACK
    assert "sample ratio mismatch" in decision.reason


def test_a_look_is_told_in_plain_words_with_all_its_numbers() -> None:
    rng = np.random.default_rng(11)
    canary, champion = arm(rng, 0.05, 412), arm(rng, 0.05, 3708)
    decision = decide(Step(10, 1000), canary, champion, HEALTHY, HEALTHY, 0, PARAMS)
    assert decision.move is Move.HOLD
    assert decision.line().startswith(
        f"canary 10 %: 412 user-days, CTR {canary.ctr:.2%} vs {champion.ctr:.2%}, "
    )
    assert decision.line().endswith(": HOLD, 588 user-days to go")
    numbers = decision.numbers()
    assert numbers["lower"] < numbers["estimate"] < numbers["upper"]
    assert (numbers["user_days"], numbers["planned"], numbers["alpha"]) == (412, 1000, 0.025)


@pytest.mark.parametrize(("clicks", "move"), [(990, Move.ADVANCE), (980, Move.HOLD)])
def test_a_step_that_held_its_user_days_advances_unless_the_estimate_is_a_sign_of_harm(
    clicks: int, move: Move
) -> None:
    champion = ArmStatistics(9000, 9000, 9000, 180_000, 45_000, 3_600_000, 180_000)
    canary = ArmStatistics(1000, 1000, clicks, 20_000, 5_000, 400_000, 20 * clicks)
    assert decide(Step(10, 1000), canary, champion, HEALTHY, HEALTHY, 0, PARAMS).move is move
    assert decide(Step(10, 1001), canary, champion, HEALTHY, HEALTHY, 0, PARAMS).move is Move.HOLD


def test_an_interval_without_bounds_is_none_for_machines() -> None:
    nobody = ArmStatistics()
    decision = decide(Step(10, 100), nobody, nobody, HEALTHY, HEALTHY, 0, PARAMS)
    assert decision.numbers()["lower"] is None
    assert "too early to say" in decision.line()


def test_the_last_step_watches_health_only_and_then_advances() -> None:
    canary = arm(np.random.default_rng(12), 0.01, 100)
    held = decide(Step(100, 101), canary, ArmStatistics(), HEALTHY, Health(), 0, PARAMS)
    done = decide(Step(100, 100), canary, ArmStatistics(), HEALTHY, Health(), 0, PARAMS)
    assert (held.move, done.move) == (Move.HOLD, Move.ADVANCE)


def test_steps_that_do_not_rise_to_a_hundred_are_refused() -> None:
    with pytest.raises(ParamsError, match=r"rollout.steps: percents \[50, 10\]"):
        replace(PARAMS, steps=(Step(50, 1), Step(10, 1)))
