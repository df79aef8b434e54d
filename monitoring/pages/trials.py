"""Rollout: what each canary's guard saw, drawn with its dates, and the turns of every release."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from monitoring.experiment.turns import turns
from monitoring.pages import interval
from monitoring.pages.desk import Asked, Desk
from serving.release import looks, state

CANARIES = 10  # steps of canaries that are drawn, the newest
LOOKS = 5_000  # that are read


def gather(desk: Desk, _: Asked) -> Mapping[str, Any]:
    """The canary's looks, newest first; each step of this and earlier canaries as a picture; the turns."""
    found = state.read(desk.redis)
    audit = state.read_audit(desk.redis, state.AUDIT_KEPT)
    begun = {entry["version"]: entry for entry in audit if entry["version"]}
    steps = [
        {"begun": begun.get(version), "last": seen[-1], "picture": interval.draw(seen, desk.margin)}
        for version, group in groupby(looks.read_looks(desk.redis, LOOKS), lambda look: look.get("version"))
        if (seen := list(group))
    ]
    now = [look for look in looks.read_looks(desk.redis) if found and look.get("version") == found.version]
    return {
        "rollout": found,
        "looks": now[: -desk.params.looks - 1 : -1],
        "steps": steps[: -CANARIES - 1 : -1],
        "turns": turns(reversed(audit))[::-1],
    }
