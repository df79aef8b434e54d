"""Overview: who serves whom, and what each arm gets."""

from collections.abc import Mapping
from typing import Any

from monitoring.pages.desk import Asked, Desk
from monitoring.pages.figures import Arms
from serving.release import state


def gather(desk: Desk, _: Asked) -> Mapping[str, Any]:
    """The rollout and a row per arm."""
    rollout = state.read(desk.redis)
    arms = desk.once(Arms, lambda: Arms(desk.redis, desk.feedback))
    return {"rollout": rollout, "arms": arms.rows(rollout) if rollout else []}
