"""Overview: what is wrong, who serves whom, what each arm gets day by day, what a release is worth."""

from collections.abc import Mapping
from typing import Any

from feature_repo.params import load
from monitoring.alerting.lookout import alarms
from monitoring.alerting.troubles import AlarmParams, lift
from monitoring.experiment.guard import RolloutParams
from monitoring.pages import figures, trend
from monitoring.pages.desk import Asked, Desk
from monitoring.pages.figures import Course, Told
from serving.release import state
from serving.release.router import ARMS, CHAMPION, HOLDOUT

DAYS = 60  # that are drawn, the newest


def gather(desk: Desk, _: Asked) -> Mapping[str, Any]:
    """Alarms; the rollout and a row per arm; a picture per surface, the busiest first; the holdout's lift."""
    rollout = state.read(desk.redis)
    wrong = [one for one in alarms(desk.redis) if not one.over]
    if rollout is None:
        return {"rollout": None, "alarms": wrong}
    told = desk.once(Course, lambda: Course(desk.redis, desk.feedback)).look(rollout)
    params, enough = load("alarms", AlarmParams), load("rollout", RolloutParams)
    spans = (("since then", told.step), ("as far back as the logs are kept", told.whole))
    return {
        "rollout": rollout,
        "alarms": wrong,
        "arms": figures.rows(desk.redis, rollout, told),
        "surfaces": surfaces(told),
        "names": ARMS,
        "lifts": [
            (span, one[CHAMPION], one[HOLDOUT], lift(one[CHAMPION], one[HOLDOUT], params, enough))
            for span, one in spans
        ],
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
