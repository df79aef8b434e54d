"""Changes of items in the stream: an entry becomes what was said of an item, and that its row.

Of the consumers it is the group `items` that applies them, in the transaction of the batch: row, news for the
services and a note for the offline log (pipelines/stream/notes.py) appear together with the position.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from redis import Redis

from feature_repo.clock import instant, micros
from feature_repo.errors import EventError
from feature_repo.eventlog.keys import ITEM_CHANGE, SAID
from feature_repo.events import EARLIEST, LAST
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.item_check import check_item
from feature_repo.features.words import DELETED, Words, tell
from feature_repo.online import changes
from feature_repo.online.listings import read_words, write_words
from feature_repo.online.rows import OnlineView

LAST_US = micros(LAST)


class Change(NamedTuple):
    """What was said of `item` at `ts`, learned at `created` (us); `fields`: features.words.FIELDS."""

    item: str
    ts: int
    created: int
    fields: dict[str, Any]


def parse_change(fields: dict[str, Any]) -> Change | None:
    """The change in an entry; None where the entry is an event. Raises EventError."""
    if fields.get("type") != ITEM_CHANGE:
        return None
    said, ts, created = fields.get("said"), fields.get("event_ts"), fields.get("created_ts")
    if type(ts) is not int or not 0 <= ts < LAST_US:
        raise EventError("event_ts", ts, "a whole number, microseconds since 1970")
    if not isinstance(said, dict) or type(said.get(DELETED)) is not bool:
        raise EventError("said", said, "the fields that change, with deleted")
    opening = said.get("available_from")
    told = {name: value for name, value in said.items() if name != DELETED} | {
        "item_id": fields.get("item_id")
    }
    if type(opening) is int:
        told["available_from"] = instant(opening)
    check_item(told)
    return Change(told["item_id"], ts, created if type(created) is int else 0, said)


class Listings:
    """The catalogue's rows for one task."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self.view = OnlineView(ITEM_CATALOGUE)

    def apply(self, pipe: Any, told: Sequence[Change]) -> list[tuple[str, Words, list[Change]]]:
        """Per item: its words afterwards, and what the offline log is to know. `pipe` watches the rows.

        Of an item that no live change has touched yet, the log first gets the row as it stood.
        """
        items = list(dict.fromkeys(change.item for change in told))
        if not items:
            return []
        pipe.watch(*(self.view.key(item) for item in items))
        held = dict(zip(items, read_words(self._redis, self.view, items), strict=True))
        notes: dict[str, list[Change]] = {item: [] for item in items}
        for item, (words, live) in held.items():
            if words and not live:
                stood = {name: value for name, (_, value) in words.items()}
                notes[item].append(Change(item, micros(EARLIEST), next(iter(words.values()))[0], stood))
        for change in told:
            tell(held[change.item][0], change.ts, change.fields)
            notes[change.item].append(change)
        return [(item, held[item][0], notes[item]) for item in items]

    def write(self, pipe: Any, applied: Sequence[tuple[str, Words, list[Change]]]) -> None:
        """Add rows, news and notes to the transaction `pipe`."""
        for item, words, notes in applied:
            write_words(pipe, self.view, item, words)
            for note in notes:
                pipe.xadd(SAID, {"change": orjson.dumps([*note])})
        changes.announce_listings(pipe, [item for item, _, _ in applied])
