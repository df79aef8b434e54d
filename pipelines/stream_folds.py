"""The stream as pure functions: an entry becomes an event, events become changed states. No Redis here.

The folds are those of the backfill; so is the rule about consent: without it an event has no user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass

import orjson

from feature_repo.aggregates import FOLDS
from feature_repo.errors import EventError
from feature_repo.events import check_event
from feature_repo.folds import Event, Fold, State
from feature_repo.history import instant

LATEST_US = 4_102_444_800_000_000  # year 2100: the door compares with the clock, the stream does not
LATEST = instant(LATEST_US)
FOLDS_BY_NAME: Mapping[str, Fold] = {fold.name: fold for fold in FOLDS}

Entity = tuple[str, str]  # name of the fold, key: ("user_history", "u123")


@dataclass(slots=True)
class Held:
    """An entity's state and `ts`, its newest instant (us): the event_timestamp of its row."""

    state: State
    ts: int


class PoisonError(Exception):
    """A fold cannot take event number `index` of the batch. States that were handed in are used up."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


def parse(raw: bytes) -> Event:
    """An entry of the stream, orjson of a canonical event with instants in us. Raises EventError."""
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise EventError("event", raw, "a JSON object") from None
    if not isinstance(fields, dict):
        raise EventError("event", fields, "a JSON object")
    ts = fields.get("event_ts")
    if type(ts) is not int or not 0 <= ts < LATEST_US:
        raise EventError("event_ts", ts, "a whole number, microseconds since 1970")
    check_event({**fields, "event_ts": instant(ts)}, LATEST)
    return Event(
        ts=ts,
        type=fields["type"],
        user_id=fields.get("user_id") if fields.get("consent", True) else None,
        session_id=fields["session_id"],
        item_id=fields.get("item_id"),
        request_id=fields.get("request_id"),
        position=fields.get("position"),
        device=fields.get("device"),
        country=fields.get("country"),
        channel=fields.get("channel"),
    )


def touched(event: Event) -> list[Entity]:
    """The entities whose state `event` changes.

    >>> touched(Event(0, "click", None, "s1", "mug"))
    [('item_activity', 'mug')]
    """
    if event.item_id is None:
        return []
    return [
        (fold.name, key)
        for fold in FOLDS
        if event.type in fold.types and (key := getattr(event, fold.key)) is not None
    ]


def apply(states: MutableMapping[Entity, Held], events: Iterable[Event]) -> dict[Entity, Held]:
    """Step every event, in order, through the states it touches; the changed ones, each once.

    `states` must hold what is stored; an entity that it lacks is new, and is added. Raises PoisonError.
    """
    changed: dict[Entity, Held] = {}
    for index, event in enumerate(events):
        for entity in touched(event):
            fold = FOLDS_BY_NAME[entity[0]]
            held = states.get(entity)
            if held is None:
                held = states[entity] = Held(fold.new(), event.ts)
            try:
                held.state = fold.step(held.state, event)
            except Exception as error:
                raise PoisonError(index, f"{type(error).__name__} in {fold.name}: {error}") from error
            held.ts = max(held.ts, event.ts)
            changed[entity] = held
    return changed
