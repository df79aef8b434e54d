"""Rules that are only tried out: their lists are logged beside what was shown.

endcap:rules:shadow   `pair`, JSON {request_id, ts, arm, bundle, surface, version, draft, shown, shadow}:
                      the version that held, the name of the draft, and per slot [item_id, rule or null]
"""

from typing import Any

from serving import pipeline
from serving.beside.backstage import Asked
from serving.rules.rulebook import Rulebook
from serving.types import Slot

PAIRS = "endcap:rules:shadow"


class Tryout:
    """Takes `share` of the answers while rules are tried out."""

    stream = PAIRS

    def __init__(self, rulebook: Rulebook, share: float) -> None:
        self._rulebook, self._share = rulebook, share

    @property
    def share(self) -> float:
        return self._share if self._rulebook.shadow_name else 0.0

    def pair(self, asked: Asked) -> dict[str, Any] | None:
        """What was shown and what the draft would have shown."""
        request, visitor, matrix = asked.request, asked.visitor, asked.matrix
        name = self._rulebook.shadow_name
        steering = self._rulebook.tried(request, matrix, visitor.now)
        if steering is None:
            return None
        served = pipeline.recommend(request, asked.bundle, visitor, matrix, steering)
        told = asked.told() | {"version": asked.steering.version, "draft": name}
        return told | {"shown": _slots(asked.answer.items), "shadow": _slots(served.slots)}


def _slots(slots: tuple[Slot, ...]) -> list[tuple[str, str | None]]:
    return [(slot.item_id, slot.rule) for slot in slots]
