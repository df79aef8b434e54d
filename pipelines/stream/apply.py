"""The stream as pure functions: an entry becomes an event, events become changed states. No Redis here.

The folds are those of the backfill; so is the rule about consent: without it an event has no user. A consumer
works on one group of folds: VISITORS, whose rows ride on the partition of their visit, or ITEMS, whose
rows every partition touches and which therefore have one writer.
"""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from feature_repo.clock import instant
from feature_repo.errors import EventError
from feature_repo.eventlog.keys import ITEMS, VISITORS
from feature_repo.events import UNCOUNTED, check_event, identity
from feature_repo.features.adoption import credited
from feature_repo.features.stored import FOLDS, ITEM_ACTIVITY, SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds.fold import Event, Fold, State
from pipelines.stream.said import Change, parse_change

LATEST_US = 4_102_444_800_000_000  # year 2100: the door compares with the clock, the stream does not
LATEST = instant(LATEST_US)
FOLDS_OF: Mapping[str, tuple[Fold, ...]] = {
    VISITORS: (USER_HISTORY, SESSION_CONTEXT),
    ITEMS: (ITEM_ACTIVITY,),
}
FOLDS_BY_NAME: Mapping[str, Fold] = {fold.name: fold for fold in FOLDS}

Entity = tuple[str, str]  # name of the fold, key: ("user_history", "u123")


class Arrival(NamedTuple):
    """One entry of the log, understood."""

    identity: bytes
    event: Event
    created: int  # when the shop learned of it, us; 0 for unknown


@dataclass(slots=True)
class Held:
    """An entity's state and `ts`, its newest instant (us): the event_timestamp of its row. 0: no row yet."""

    state: State
    ts: int


class PoisonError(Exception):
    """A fold cannot take event number `index` of the batch. States that were handed in are used up."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index


def parse(raw: bytes) -> Arrival | Change:
    """An entry of the log, orjson of a canonical event or change with instants in us. Raises EventError."""
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise EventError("event", raw, "a JSON object") from None
    if not isinstance(fields, dict):
        raise EventError("event", fields, "a JSON object")
    if change := parse_change(fields):
        return change
    uncounted = fields.pop(UNCOUNTED, None)
    ts = fields.get("event_ts")
    if type(ts) is not int or not 0 <= ts < LATEST_US:
        raise EventError("event_ts", ts, "a whole number, microseconds since 1970")
    check_event({**fields, "event_ts": instant(ts)}, LATEST)
    event = Event(
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
        consent=fields.get("consent", True),
        counted=uncounted is None,
    )
    created = fields.get("created_ts")
    return Arrival(identity(fields), event, created if type(created) is int else 0)


def touched(folds: Sequence[Fold], event: Event) -> list[Entity]:
    """The entities of `folds` whose state `event` changes by itself.

    >>> touched(FOLDS_OF[ITEMS], Event(0, "click", None, "s1", "mug"))
    [('item_activity', 'mug')]
    """
    if event.item_id is None:
        return []
    return [
        (fold.name, key)
        for fold in folds
        if fold.reads(event) and (key := getattr(event, fold.key)) is not None
    ]


def wanted(folds: Sequence[Fold], states: Mapping[Entity, Held], events: Sequence[Event]) -> list[Entity]:
    """Entities whose state `apply` needs and `states` lacks, each once.

    Ask again after adding them: the owner of a visit is known only then. One without a stored row is added as
    `unstored(entity)`.
    """
    needed: dict[Entity, None] = {}
    for event in events:
        needed.update(dict.fromkeys(touched(folds, event)))
        if USER_HISTORY in folds and event.item_id is not None:
            visit = (SESSION_CONTEXT.name, event.session_id)
            needed[visit] = None
            if visit not in states:
                continue
            owner = states[visit].state["owner"]
            if event.user_id != owner or event.type in USER_HISTORY.types:
                needed.update({(USER_HISTORY.name, user): None for user in (event.user_id, owner) if user})
    return [entity for entity in needed if entity not in states]


def unstored(entity: Entity) -> Held:
    """The state of an entity that has no row."""
    return Held(FOLDS_BY_NAME[entity[0]].new(), 0)


def apply(
    folds: Sequence[Fold], states: MutableMapping[Entity, Held], events: Sequence[Event]
) -> dict[Entity, Held]:
    """Step every event, in order, through the states it touches; the changed ones, each once.

    `states` must lack nothing that is `wanted`. Raises PoisonError.
    """
    changed: dict[Entity, Held] = {}
    for index, event in enumerate(events):
        if event.item_id is None:
            continue
        name = "the visit"
        try:
            for entity, one in steps(folds, states, event):
                held, name = states[entity], entity[0]
                fold = FOLDS_BY_NAME[name]
                if fold.outlived(event.ts, held.ts):
                    continue  # the row has started anew since then
                held.state = fold.step(fold.resumed(held.state, held.ts, event.ts), one)
                held.ts = max(held.ts, event.ts)
                changed[entity] = held
        except Exception as error:
            raise PoisonError(index, f"{type(error).__name__} in {name}: {error}") from error
    return changed


def steps(
    folds: Sequence[Fold], states: Mapping[Entity, Held], event: Event
) -> Iterator[tuple[Entity, Event]]:
    """(entity, the event that it takes), in order. A user's depend on the visit as it was before `event`."""
    for fold in folds:
        if fold is USER_HISTORY:
            held = states[SESSION_CONTEXT.name, event.session_id]
            visit = SESSION_CONTEXT.resumed(held.state, held.ts, event.ts)
            for given in credited(visit, event):
                yield (fold.name, str(given.user_id)), given
        elif fold.reads(event):
            yield (fold.name, getattr(event, fold.key)), event
