"""Rows of the erased in Redis: log, dead letters, exposures, samples, and the rows of shopper and visit."""

import time
from collections.abc import Iterator
from typing import Any

import orjson

from feature_repo.eventlog.keys import DEAD, StreamParams, stream_keys
from feature_repo.features.catalogue import DECLARED
from feature_repo.files import chunks
from feature_repo.online.rows import OnlineView, read_texts
from feature_repo.params import load
from pipelines.persons.sweep import OWNER, Erased, Found
from serving.live.exposures import SERVED
from serving.rails.rail import key_of as rail_of
from serving.rails.rail import unit as unit_of
from serving.release.state import EXPOSURES

PAGE = 1_000  # entries of a stream, or keys
REWRITE_S = 300.0
KEYED_BY = ("user_id", "session_id")


def streams() -> dict[str, bytes]:
    """Key of a stream -> the field of its entries that is JSON and says who."""
    logs = dict.fromkeys(stream_keys(load("stream", StreamParams).partitions), b"event")
    return {**logs, DEAD: b"event", EXPOSURES: b"exposure", SERVED: b"meta"}


def look(redis: Any, erased: Erased, remove: bool) -> Iterator[Found]:
    """What each store holds; with `remove` it is gone from there."""
    for key, name in streams().items():
        yield _entries(redis, key, name, erased, remove)
    for view in views():
        yield _rows(redis, view, erased, remove)


def entries(redis: Any, key: str, field: bytes, at: str = "-") -> Iterator[tuple[bytes, bytes]]:
    """(number, JSON) of a stream, from its beginning, or from `at` on."""
    while page := redis.xrange(key, min=at, count=PAGE):
        for number, fields in page:
            yield number, fields.get(field, b"")
        at = f"({page[-1][0].decode()}"


def views() -> list[OnlineView]:
    """Of shoppers and visits."""
    return [OnlineView(declared) for declared in DECLARED if declared.key in KEYED_BY]


def entities(redis: Any, view: OnlineView) -> Iterator[tuple[bytes, str]]:
    """(key, id) of every row."""
    for key in redis.scan_iter(view.pattern(), count=PAGE):
        yield key, view.entity(key)


def rewrite(redis: Any) -> bool:
    """Have Redis write its append-only file anew, without what was removed; False where it has none.

    What the file of a Redis of somebody else holds is the operator's matter: docs/privacy.md.
    """
    if not int(redis.info("persistence")["aof_enabled"]):
        return False
    redis.bgrewriteaof()
    until = time.monotonic() + REWRITE_S
    while True:
        told = redis.info("persistence")
        if not told["aof_rewrite_in_progress"] and not told.get("aof_rewrite_scheduled", 0):
            return bool(told["aof_last_bgrewrite_status"] == "ok")
        if time.monotonic() > until:
            return False
        time.sleep(0.05)


def _entries(redis: Any, key: str, field: bytes, erased: Erased, remove: bool) -> Found:
    found = Found(f"Redis {key}")
    for page in chunks(entries(redis, key, field, erased.read.get(key, "-")), PAGE):
        theirs = [number for number, raw in page if _is_theirs(raw, erased)]
        if theirs:
            found.note(len(theirs), theirs[0].decode())
            if remove:
                redis.xdel(key, *theirs)
        erased.read[key] = f"({page[-1][0].decode()}"  # entries never change: the next look begins behind
    return found


def _is_theirs(raw: bytes, erased: Erased) -> bool:
    try:
        event = orjson.loads(raw)
    except orjson.JSONDecodeError:  # a dead letter may be anything
        return bool(erased.tokens(raw))
    return isinstance(event, dict) and erased.owns(event)


def _rows(redis: Any, view: OnlineView, erased: Erased, remove: bool) -> Found:
    found = Found(f"Redis {view.declared.name}")
    for page in chunks(entities(redis, view), PAGE):
        of = owners(redis, view, [entity for _, entity in page])
        theirs = [
            (key, entity)
            for (key, entity), owner in zip(page, of, strict=True)
            if erased.has(owner or entity)
        ]
        if theirs:
            found.note(len(theirs))
            if remove:  # with the lists that were made beforehand of what the row said
                redis.unlink(
                    *(key for key, _ in theirs), *(rail_of(unit(view, entity)) for _, entity in theirs)
                )
    return found


def unit(view: OnlineView, entity: str) -> str:
    """Whose rail a row belongs to, as serving.rails.rail.unit has it."""
    user = view.declared.key == "user_id"
    return unit_of(entity if user else None, None if user else entity) or ""


def owners(redis: Any, view: OnlineView, found: list[str]) -> list[str]:
    """Of each visit its owner, "" for nobody; of shoppers none."""
    if OWNER not in (column.name for column in view.declared.columns):
        return [""] * len(found)
    return read_texts(redis, view, OWNER, found)
