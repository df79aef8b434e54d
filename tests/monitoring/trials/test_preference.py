"""The verdict of interleaved lists: who is preferred, in any number of looks, and who is not counted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from feature_repo.params import load
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.tail import Exposure, Outcome
from monitoring.experiment.visitors import Belief
from monitoring.trials.preference import Clicks, Preference, bounds, judge, rho2_of
from monitoring.trials.verdicts import Trials, evidence
from serving.beside.trial import InterleaveParams

PARAMS = Trials(alpha=0.05, power=0.8, burn_in_visitors=100, burn_in_events=25, srm_alpha=1e-4)
BELIEF = Belief(most_clicks=4, most_ctr=0.5, most_shoppers=1000)


def shown(unit: str, teams: str, clicked: tuple[int, ...], **fields: str) -> Exposure:
    items = tuple(f"item-{at}" for at in range(len(teams)))
    told = {"bundle": "old", "rival": "new"} | fields
    outcomes = {items[at]: Outcome(1, 1) for at in clicked}
    head = f"{unit}-{teams}", 1, unit, unit, None, "interleaved"
    return Exposure(
        *head, told["bundle"], "homepage_hero", items, 7, rival=told["rival"], teams=teams, outcomes=outcomes
    )


def judged(*lists: Exposure) -> Preference:
    return judge(lists, "old", "new", 0.1, BELIEF, PARAMS)


def test_clicks_speak_for_the_team_of_their_slot_and_nobody_s_for_none() -> None:
    found = judged(*(shown(f"u{at}", "BA-", (0,)) for at in range(60)), shown("v", "A-B", (0, 1)))
    assert found.clicks == (1, 60) and found.nobodys == 1 and found.lists == found.shoppers == 61
    assert found.verdict == "challenger" and found.lower > 0 and found.estimate == pytest.approx(59 / 61)
    mirrored = judged(*(shown(f"u{at}", "AB-", (0,)) for at in range(60)), shown("v", "B-A", (0, 1)))
    assert mirrored.verdict == "champion" and mirrored.estimate == -found.estimate


def test_other_pairs_shoppers_without_an_id_and_who_clicks_everything_are_left_out() -> None:
    few = [shown("u", "BA", (0,)), shown("v", "BA", (0,), rival="other"), shown("w", "BA", (0,), bundle="x")]
    nobody = shown("n", "BA", (0,)).__class__(**{**vars(shown("n", "BA", (0,))), "unit": None})
    robot = shown("r", "BBBBBB", (0, 1, 2, 3, 4, 5))
    found = judged(*few, nobody, robot)
    assert found.clicks == (0, 1) and found.suspects == 1 and found.verdict == "early"


def test_nothing_at_all_is_early_and_knows_nothing() -> None:
    found = judged()
    assert (found.lists, found.verdict, found.lower, found.upper, found.evidence) == (0, "early", -1, 1, 1.0)


def test_the_interval_leaves_0_out_exactly_when_the_evidence_is_enough() -> None:
    rng = np.random.default_rng(1)
    for difference in rng.integers(-150, 150, 200):
        clicks = Clicks(1000, int(difference), 1100, 900)
        _, low, high = bounds(clicks, 0.1, 0.05)
        found = evidence(difference / 1100, 1100**-0.5, rho2_of(0.1, 0.05))
        assert (found > 20) == (not low <= 0 <= high)


def differences(rng: np.random.Generator, lean: float, shoppers: int) -> Iterator[tuple[int, int]]:
    """A shopper's clicks on champion and challenger: mostly none, now and then several on one side."""
    for _ in range(shoppers):
        many = int(rng.poisson(0.5) * (1 + rng.poisson(0.3)))
        mine = int(rng.binomial(many, (1 + lean) / 2))
        yield many - mine, mine


@pytest.mark.parametrize(("lean", "least", "most"), [(0.0, 0.0, 0.05), (0.25, 0.9, 1.0)])
def test_a_planted_preference_is_found_and_none_is_not_however_often_one_looks(
    lean: float, least: float, most: float
) -> None:
    rng, found, runs = np.random.default_rng(7), 0, 200
    for _ in range(runs):
        a, b = np.array(list(differences(rng, lean, 1500))).T
        d = np.cumsum(b - a)
        _, low, high = bounds(Clicks(np.cumsum(a + b), d, np.cumsum((b - a) ** 2)), 0.1, 0.05)
        found += bool((low > 0).any() or (high < 0).any())  # a look after every shopper
    assert least <= found / runs <= most


def test_the_project_s_section_is_one() -> None:
    params = load("interleave", InterleaveParams)
    assert 0 < params.share <= 1 and load("feedback", FeedbackParams).belief.most_clicks > 0
