"""Whose event it is and which: a visitor's ids as shopper and visit, and an id that a resend repeats.

The rules are those of the imports (pipelines/ingest/adapters), so that history and live events are one
shopper's: who has not said who he is, is called by the id of his device.
"""

from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from feature_repo.events import is_id
from feature_repo.vocabulary.naming import event_id
from serving.payloads.payload import NOBODY, Dropped, first


class Visitor(NamedTuple):
    """`device` is the system's id of a browser or an app, `user` of a person, `visit` of a session."""

    device: str | None
    user: str | None = None
    visit: str | None = None

    def ids(self) -> dict[str, str]:
        """`user_id` and `session_id` of an event.

        Raises Dropped where nothing tells whose it is.

        >>> Visitor("123.456", None, "7").ids()
        {'user_id': '123.456', 'session_id': '123.456.7'}
        """
        whose = self.device or self.user
        if whose is None:
            raise Dropped(NOBODY)
        return {"user_id": self.user or whose, "session_id": f"{whose}.{self.visit}" if self.visit else whose}


def visitor(device: Any, user: Any = None, visit: Any = None) -> Visitor:
    """Of values as they stand in the payload."""
    return Visitor(first(device), first(user), first(visit))


def of_order(order: str, place: int) -> str:
    """The id of a line of an order, which counts once however often it is told."""
    return event_id("purchase", order, f"{place:03d}")


def of_line(whole: str, place: int, lines: int) -> str:
    """The id of one of the `lines` events that an event with the id `whole` unfolds to.

    >>> of_line("m1", 1, 1), of_line("m1", 2, 3)
    ('m1', 'm1:002')
    """
    return whole if lines == 1 and is_id(whole) else event_id(whole, f"{place:03d}")


def of_content(system: str, *content: Any) -> str:
    """The id of an event that has none: a digest of who, when and what, so that a resend has the same."""
    try:
        told = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:  # half a character, or a number of more than 64 bits
        told = repr(content).encode("utf-8", "surrogatepass")
    return f"{system}:{blake2b(told, digest_size=16).hexdigest()}"
