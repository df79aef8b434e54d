"""What is not believed decides nothing: it alarms and holds, while errors still roll back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_repo.params import load
from monitoring.experiment.guard import Move, RolloutParams, Step, decide
from monitoring.experiment.sequential import ArmStatistics
from monitoring.experiment.visitors import Crowd
from serving.release.state import Health

pytestmark = pytest.mark.fault
PARAMS = load("rollout", RolloutParams)
HEALTHY = Health(requests=10_000, errors=3, empty=0, p99_ms=8.0)


def arm(rng: np.random.Generator, ctr: float) -> ArmStatistics:
    """4,000 shoppers who see 36 slots each."""
    clicks = rng.binomial(36, ctr, 4000)
    return sum((ArmStatistics.of(int(x), 36) for x in clicks), ArmStatistics())


def test_a_split_that_only_shoppers_without_events_bend_is_an_alarm_and_holds() -> None:
    off = ArmStatistics(user_days=2000, shoppers=2000), ArmStatistics(user_days=8000, shoppers=8000)
    silent = Crowd(fresh=2000, visiting=100), Crowd(fresh=8000, visiting=900)
    decision = decide(Step(10, 4000), *off, HEALTHY, HEALTHY, 0, PARAMS, *silent)
    assert decision.move is Move.HOLD and decision.srm_evidence > 1e4
    assert "those with events of their own do; clicks decide nothing" in decision.reason
    loud = Crowd(fresh=2000, visiting=1900), Crowd(fresh=8000, visiting=7600)
    assert decide(Step(10, 4000), *off, HEALTHY, HEALTHY, 0, PARAMS, *loud).move is Move.ROLLBACK


@pytest.mark.parametrize("drop", [0.5, -0.5])
@pytest.mark.parametrize(
    ("crowd", "told"),
    [
        (Crowd(4000, 4000, suspects=30, suspect_clicks=4000), "4,000 of the challenger's"),
        (Crowd(4000, 4000, refused=7), "7 lists of the challenger are of shoppers beyond"),
        (Crowd(90_000, 3000), "an event came of only"),
    ],
)
def test_what_is_not_believed_is_evidence_for_nothing_but_errors_still_roll_back(
    drop: float, crowd: Crowd, told: str
) -> None:
    rng = np.random.default_rng(14)
    arms = arm(rng, 0.05 * (1 - drop)), arm(rng, 0.05)
    step = Step(50, 4000)
    assert decide(step, *arms, HEALTHY, HEALTHY, 0, PARAMS).move is not Move.HOLD
    others = Crowd(crowd.fresh, crowd.visiting)
    held = decide(step, *arms, HEALTHY, HEALTHY, 0, PARAMS, crowd, others)
    assert held.move is Move.HOLD and held.reason.startswith("alarm: ") and told in held.alarm
    failing = replace(HEALTHY, errors=5000)
    assert decide(step, *arms, failing, HEALTHY, 0, PARAMS, crowd, others).move is Move.ROLLBACK


def test_a_ctr_that_is_not_peoples_holds_at_every_step() -> None:
    greedy = ArmStatistics(1000, 1000, 9960, 10_000, 99_202, 100_000, 99_600)
    for percent in (50, 100):
        decision = decide(Step(percent, 100), greedy, greedy, HEALTHY, HEALTHY, 0, PARAMS)
        assert decision.move is Move.HOLD
        assert "the challenger's CTR of 99.6% is not people's (limit 50%)" in decision.reason
