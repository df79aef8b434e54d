"""Whose event it is and which: a visitor's ids as shopper and visit, and an id that a resend repeats.

The rules are those of the imports (pipelines/ingest/adapters), so that history and live events are one
shopper's: who has not said who he is, is called by the id of his device.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from feature_repo.events import is_id
from feature_repo.vocabulary.naming import event_id
from serving.access.credentials import Guessable
from serving.payloads.payload import NOBODY, Dropped, first

LONGEST = 256  # characters of an id


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
        visit = f"{whose}.{self.visit}" if self.visit else whose
        return {"user_id": self.user or whose, "session_id": visit if self.device else Guessable(visit)}


def visitor(device: Any, user: Any = None, visit: Any = None) -> Visitor:
    """Of values as they stand in the payload."""
    return Visitor(first(device), first(user), first(visit))


def of_order(order: str, place: int) -> str:
    """The id of a line of an order, which counts once however often it is told."""
    return _numbered(place, "purchase", order)


def of_line(whole: str, place: int, lines: int) -> str:
    """The id of one of the `lines` events that an event with the id `whole` unfolds to.

    >>> of_line("m1", 1, 1), of_line("m1", 2, 3)
    ('m1', 'm1:002')
    """
    return whole if lines == 1 and is_id(whole) else _numbered(place, whole)


def _numbered(place: int, *parts: str) -> str:
    """event_id(*parts, place): what is too long to be an id is read once for all lines of an order."""
    if sum(map(len, parts)) <= LONGEST:
        return event_id(*parts, f"{place:03d}")
    digest = _begun(*parts).copy()
    digest.update(f"{place:03d}".encode())
    return digest.hexdigest()


@lru_cache(maxsize=1)  # the lines of an event follow one another
def _begun(*parts: str) -> Any:
    return blake2b("".join(f"{part}:" for part in parts).encode("utf-8", "surrogatepass"), digest_size=16)


def of_content(system: str, *content: Any) -> str:
    """The id of an event that has none: a digest of who, when and what, so that a resend has the same."""
    try:
        told = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:  # half a character, or a number of more than 64 bits
        told = repr(content).encode("utf-8", "surrogatepass")
    return f"{system}:{blake2b(told, digest_size=16).hexdigest()}"
