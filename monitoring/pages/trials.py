"""Rollout: the canary under way with what its guard saw, and the turns of earlier releases."""

from collections.abc import Mapping
from typing import Any

from monitoring.pages import interval
from monitoring.pages.desk import Asked, Desk
from monitoring.pages.figures import rollout_looks
from serving.release import state


def gather(desk: Desk, _: Asked) -> Mapping[str, Any]:
    """The canary's looks, newest first, and their picture."""
    found = state.read(desk.redis)
    looks = rollout_looks(desk.redis, found) if found else []
    return {
        "rollout": found,
        "looks": looks[: -desk.params.looks - 1 : -1],
        "picture": interval.draw(looks, desk.margin),
    }
