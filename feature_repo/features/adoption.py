"""Which events reach a shopper's history: the same rule for the stream and for the backfill.

A visit that becomes known gives its anonymous contacts to the shopper at that instant, not before: the row of
history is then the same offline as it was online. What is given is what the visit remembers: up to 20
distinct items, each once, by its strongest contact.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from feature_repo.events import KINDS
from feature_repo.features.stored import SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds.fold import Event

_TYPE_OF = {code: kind for kind, code in KINDS.items()}
_TYPES = USER_HISTORY.types | SESSION_CONTEXT.types


def credited(session: Mapping[str, Any], event: Event) -> list[Event]:
    """The events that `event` adds to some user's history; `session` is the state of its visit before it.

    Its own, if it has a user; with it those of an anonymous visit that it makes known; and an anonymous event
    in a known visit counts for the visit's owner. Each with its own `ts`. Without consent: none.
    """
    user, owner = event.user_id, session["owner"]
    counts = event.type in USER_HISTORY.types
    if user is None:
        return [event._replace(user_id=owner)] if owner and counts and event.consent else []
    found = [event] if counts else []
    if owner or session["sealed"] or event.type not in SESSION_CONTEXT.types:
        return found
    contacts = zip(session["contact_items"], session["contact_ts"], session["contact_kinds"], strict=True)
    before = [Event(ts, _TYPE_OF[kind], user, event.session_id, item) for item, ts, kind in contacts]
    return [*before, *found]


class Adopted(NamedTuple):
    """An event that reaches `event.user_id` at the instant `at` (us), by way of the event `event_id`."""

    event_id: str
    at: int
    created: int
    event: Event


def adopted(events: Iterable[tuple[str, int, Event]]) -> Iterator[Adopted]:
    """What visits give to their shoppers besides the shoppers' own events.

    `events` are (event_id, created, event) sorted by (session_id, ts, event_id).
    """
    visit, state, at = None, SESSION_CONTEXT.new(), 0
    for event_id, created, event in events:
        if event.session_id != visit:
            visit, state, at = event.session_id, SESSION_CONTEXT.new(), event.ts
        state = SESSION_CONTEXT.resumed(state, at, event.ts)
        for given in credited(state, event):
            if given is not event:
                yield Adopted(event_id, event.ts, created, given)
        if event.type in SESSION_CONTEXT.types:
            state, at = SESSION_CONTEXT.step(state, event), event.ts


def adopt(connection: duckdb.DuckDBPyConnection, chunk: int) -> int:
    """Make the table `adopted` in a connection of offline.history.raw_events; the number of its rows.

    Columns: event_id, known_at, created, then those of Event; `place` keeps the order among equals.
    """
    fields = ", ".join(Event._fields)
    types = ", ".join(f"'{kind}'" for kind in sorted(_TYPES))
    reader = connection.sql(
        f"""
        WITH mixed AS (
            SELECT session_id FROM events WHERE type IN ({types}) GROUP BY session_id
            HAVING count(user_id) > 0 AND count(*) FILTER (user_id IS NULL AND consent) > 0)
        SELECT event_id, created, {fields} FROM events SEMI JOIN mixed USING (session_id)
        WHERE type IN ({types}) AND item_id IS NOT NULL ORDER BY session_id, ts, event_id"""
    ).to_arrow_reader(chunk)
    found = list(adopted(_triples(reader)))
    names = ("event_id", "known_at", "created", "place", *Event._fields)
    kinds = dict.fromkeys(names, pa.string()) | dict.fromkeys(names[1:4], pa.int64())
    kinds |= {"ts": pa.int64(), "position": pa.int32(), "consent": pa.bool_(), "counted": pa.bool_()}
    rows = [(a.event_id, a.at, a.created, place, *a.event) for place, a in enumerate(found)]
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    arrays = [pa.array(values, kind) for values, kind in zip(columns, kinds.values(), strict=True)]
    table = pa.table(arrays, schema=pa.schema(kinds))
    connection.from_arrow(table).create("adopted")
    return len(found)


def _triples(reader: pa.RecordBatchReader) -> Iterator[tuple[str, int, Event]]:
    for batch in reader:
        event_id, created, *fields = [column.to_pylist() for column in batch.columns]
        yield from zip(event_id, created, map(Event._make, zip(*fields, strict=True)), strict=True)
