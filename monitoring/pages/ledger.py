"""Audit: every change of what serves, of the rules and of a person's data; who made it, when and why."""

from collections.abc import Mapping
from typing import Any

from monitoring.pages.desk import Asked, Desk
from serving.release import state


def gather(desk: Desk, _: Asked) -> Mapping[str, Any]:
    """The newest entries."""
    return {"audit": state.read_audit(desk.redis, desk.params.audit_entries)}
