"""Assignment of shoppers to arms."""

from __future__ import annotations

import numpy as np
from scipy.stats import chisquare, kstest

from serving.release.router import ARMS, CHALLENGER, CHAMPION, HOLDOUT, assign, position

IDS = [f"user-{i}" for i in range(20_000)]


def arms(percent: int, salt: str = "exp-1", holdout: float = 0.02) -> list[str]:
    return [assign(unit, salt, holdout, percent) for unit in IDS]


def test_the_same_shopper_stays_in_the_same_arm() -> None:
    assert arms(10) == arms(10)
    # Known answers: a change of the hash would move shoppers between arms in the middle of an experiment.
    assert [round(position(unit, "exp-1"), 6) for unit in ("U123", "", "żółw")] == [0.38809, 0.31034, 0.66738]


def test_a_wider_canary_keeps_everybody_who_was_in_the_narrower_one() -> None:
    seen: set[str] = set()
    for percent in (0, 1, 10, 50, 99, 100):
        now = {unit for unit, arm in zip(IDS, arms(percent), strict=True) if arm == CHALLENGER}
        assert seen <= now
        seen = now
    assert len(seen) == sum(arm != HOLDOUT for arm in arms(0))


def test_shares_are_those_asked_for() -> None:
    found = arms(10)
    counts = [found.count(arm) for arm in ARMS]
    expected = [len(IDS) * share for share in (0.02, 0.98 * 0.9, 0.98 * 0.1)]
    assert chisquare(counts, expected).pvalue > 0.001


def test_the_holdout_is_the_same_people_in_every_experiment_and_at_every_step() -> None:
    holdouts = [
        {unit for unit, arm in zip(IDS, arms(percent, salt), strict=True) if arm == HOLDOUT}
        for percent, salt in ((0, "exp-1"), (50, "exp-1"), (100, "exp-2"))
    ]
    assert holdouts[0] == holdouts[1] == holdouts[2] != set()


def test_another_experiment_tries_out_other_people() -> None:
    first, second = (np.array(arms(50, salt, holdout=0.0)) == CHALLENGER for salt in ("exp-1", "exp-2"))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_nobody_sees_the_challenger_at_zero_and_nobody_the_champion_at_a_hundred() -> None:
    assert CHALLENGER not in arms(0)
    assert CHAMPION not in arms(100)


def test_positions_are_uniform_and_a_long_salt_is_not_cut_short() -> None:
    assert kstest([position(unit, "exp-1") for unit in IDS], "uniform").pvalue > 0.001
    long = "x" * 64
    assert position("U123", long + "a") != position("U123", long + "b")
