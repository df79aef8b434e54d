"""An id -> the pseudonyms of the person behind it: the shopper's own, and those of the visits.

A visit is the person's where nobody else is known in it; an id may be that of a visit where nobody is known.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from feature_repo.errors import ParamsError
from feature_repo.events import is_id
from feature_repo.persons.pseudonyms import Persons
from pipelines.persons.online_rows import entries, owners, streams, views
from pipelines.persons.stored_files import files
from pipelines.persons.sweep import OWNER

Names = Callable[[str], str]  # an id -> its pseudonym


@dataclass(frozen=True)
class Person:
    """`name`: the pseudonym; `visits`: those of the visits that are nobody else's, sorted."""

    name: str
    visits: tuple[str, ...]

    def tombstones(self, persons: Persons) -> list[str]:
        return sorted(persons.tombstone(one) for one in (self.name, *self.visits))


def person(raw: str, persons: Persons, redis: Any) -> Person:
    """Whom `raw`, an id from outside or a pseudonym, means. Raises ParamsError for what is no id."""
    if not is_id(raw):
        allowed = "a user_id or session_id: 1 to 256 characters without control characters"
        raise ParamsError(f"id: {ascii(raw)[:80]} is none; allowed: {allowed}")
    of = cache(persons.of)
    name = of(raw)
    seen: dict[str, set[str]] = {}  # visit -> who is known in it
    for user, visit in pairs(of, redis):
        seen.setdefault(visit, set()).add(user)
    visits = {visit for visit, users in seen.items() if users == {name}}
    shared = name in seen and seen[name] != {name}  # a visit of somebody else's: erase that shopper
    if shared:
        raise ParamsError(
            "id: is that of a visit of a known shopper; allowed: that shopper's id. Next: erase that one"
        )
    return Person(name, tuple(sorted(visits - {name})))


def typed(raw: str) -> str:
    """`-` is the first line of standard input: arguments are read by everybody on the machine."""
    return sys.stdin.readline().rstrip("\n") if raw == "-" else raw


def pairs(of: Names, redis: Any) -> Iterator[tuple[str, str]]:
    """(shopper, visit) of every store that has both."""
    for path in files():
        if path.suffix == ".parquet":
            yield from _of_table(path, of)
    for key, field in streams().items():
        for _, raw in entries(redis, key, field):
            yield from _pair(raw, of)
    yield from _owners(redis, of)


def _of_table(path: Path, of: Names) -> Iterator[tuple[str, str]]:
    """Of a table of events, or of one that says who owns a visit."""
    try:
        names = set(pq.read_schema(path).names)
    except (OSError, ValueError):
        return
    user = next((name for name in ("user_id", OWNER) if name in names), None)
    if user is None or "session_id" not in names:
        return
    table = pq.read_table(path, columns=[user, "session_id"]).group_by([user, "session_id"]).aggregate([])
    for who, visit in zip(table[user].to_pylist(), table["session_id"].to_pylist(), strict=True):
        if who and visit:
            yield of(who), of(visit)


def _pair(raw: bytes, of: Names) -> Iterator[tuple[str, str]]:
    try:
        event = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return
    if isinstance(event, dict):
        user, visit = event.get("user_id"), event.get("session_id")
        if isinstance(user, str) and isinstance(visit, str):
            yield of(user), of(visit)


def _owners(redis: Any, of: Names) -> Iterator[tuple[str, str]]:
    """Of the visits' rows."""
    for view in views():
        if OWNER in (column.name for column in view.declared.columns):
            found = [view.entity(key) for key in redis.scan_iter(view.pattern(), count=1_000)]
            for at in range(0, len(found), 1_000):
                part = found[at : at + 1_000]
                for visit, owner in zip(part, owners(redis, view, part), strict=True):
                    if owner:
                        yield of(owner), of(visit)
