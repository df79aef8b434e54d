"""Overview: what is wrong, who serves whom, and what each arm gets."""

from collections.abc import Mapping
from typing import Any

from monitoring.alerting.lookout import alarms
from monitoring.pages.desk import Asked, Desk
from monitoring.pages.figures import Arms
from serving.release import state


def gather(desk: Desk, _: Asked) -> Mapping[str, Any]:
    """The alarms, the rollout and a row per arm."""
    rollout = state.read(desk.redis)
    arms = desk.once(Arms, lambda: Arms(desk.redis, desk.feedback))
    rows = arms.rows(rollout) if rollout else []
    return {"rollout": rollout, "arms": rows, "alarms": [one for one in alarms(desk.redis) if not one.over]}
