"""Whose visit it is: a visit may begin nameless and become known, and a device may change hands.

anonymous ─► known U     the visit is U's; what was touched before goes into U's history, once
known U ─► anonymous     still U's: a tag without user_id is an oversight, a logout begins a new visit
known U ─► known V       another shopper on the same device: the visit starts anew, nothing of U is left
no consent               kept apart: of a known visit it changes nothing, and who becomes known starts anew
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from feature_repo.folds.fold import Column, Event, Fold, Part, State


class Owner(Part):
    """The shopper whom the visit belongs to, and whether it may be given to one who appears later."""

    columns = (
        Column("owner", "string", "user_id", "the shopper known in this visit; empty for nobody yet"),
        Column("owner_ts", "int64", "us", "newest event that names the owner"),
        Column("sealed", "int64", "0 or 1", "events without consent: the visit is given to nobody"),
    )

    def __init__(self, types: Collection[str]) -> None:
        self.types = frozenset(types)

    def step(self, state: State, event: Event) -> None:
        if event.user_id:
            state["owner"] = event.user_id
            state["owner_ts"] = max(state["owner_ts"], event.ts)
        if not event.consent:
            state["sealed"] = 1


@dataclass(frozen=True)
class SessionFold(Fold):
    """A fold of visits, with a part `Owner`. The event of another known shopper starts it anew.

    One that happened before the owner was last named does not: it is late, and the device has changed hands.
    """

    def step(self, state: State, event: Event) -> State:
        if owner := state["owner"]:
            if not event.consent:  # somebody's; an event without consent does not tell whose
                return state
            if event.user_id and event.user_id != owner:
                if event.ts < state["owner_ts"]:
                    return state
                state = self.new()
        elif event.user_id and state["sealed"]:
            state = self.new()
        return super().step(state, event)


def visible(row: Mapping[str, Any] | None, user_id: str | None) -> Mapping[str, Any] | None:
    """The session's row if it may be used for `user_id` (None: nobody is logged in), else None.

    >>> visible({"owner": "ann"}, "bob") is visible({"owner": "ann"}, None) is None
    True
    """
    return row if row is None or row["owner"] in ("", user_id) else None
