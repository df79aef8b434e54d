"""Overview: what is wrong, who serves whom, what each arm gets day by day, what a release is worth."""

import math
from collections.abc import Mapping
from typing import Any

from feature_repo.params import load
from monitoring.alerting.lookout import alarms
from monitoring.experiment.guard import RolloutParams
from monitoring.experiment.sequential import ArmStatistics, Interval, compare
from monitoring.pages import trend
from monitoring.pages.desk import Asked, Desk
from monitoring.pages.figures import Arms, Course, Told
from serving.release import state
from serving.release.router import ARMS, CHAMPION, HOLDOUT

DAYS = 60  # that are drawn, the newest


def gather(desk: Desk, _: Asked) -> Mapping[str, Any]:
    """Alarms; the rollout and a row per arm; a picture per surface, the busiest first; the holdout's lift."""
    rollout = state.read(desk.redis)
    wrong = [one for one in alarms(desk.redis) if not one.over]
    if rollout is None:
        return {"rollout": None, "alarms": wrong}
    arms = desk.once(Arms, lambda: Arms(desk.redis, desk.feedback))
    told = desk.once(Course, lambda: Course(desk.redis, desk.feedback)).look()
    params = load("rollout", RolloutParams)
    return {
        "rollout": rollout,
        "alarms": wrong,
        "arms": arms.rows(rollout),
        "surfaces": surfaces(told),
        "names": ARMS,
        "whole": told.whole,
        "lift": lift(told.whole[CHAMPION], told.whole[HOLDOUT], params),
        "alpha": params.alpha,
    }


def surfaces(told: Told) -> list[tuple[str, int, Any]]:
    """Name, slots shown and picture of each surface, of the newest DAYS."""
    newest = max((day for arms in told.days.values() for days in arms.values() for day in days), default=0)
    drawn = []
    for name, arms in told.days.items():
        recent = {
            arm: {day: one for day, one in arms[arm].items() if day > newest - DAYS}
            for arm in ARMS
            if arm in arms
        }
        slots = sum(int(one.impressions) for days in recent.values() for one in days.values())
        drawn.append((name, slots, trend.draw(recent)))
    return sorted(drawn, key=lambda one: (-one[1], one[0]))


def lift(champion: ArmStatistics, holdout: ArmStatistics, params: RolloutParams) -> Interval | None:
    """Relative difference of the champion's CTR from the holdout's, for all looks; None: too early."""
    told = champion, holdout
    few = min(one.shoppers for one in told) < params.burn_in_shoppers
    if few or min(one.clicks for one in told) < params.burn_in_clicks:
        return None
    found = compare(champion, holdout, 0.0, params.alpha, params.tightest_error)
    return found if math.isfinite(found.upper) else None
