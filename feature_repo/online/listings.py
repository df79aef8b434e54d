"""Rows of the catalogue in Redis, whose fields may have been said at different instants.

An item's hash has, beside Feast's fields of `item_catalogue`, one of ours: every word with its instant, as
long as these differ. Feast's row is what follows from the words; it stands at the newest of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from redis.exceptions import WatchError

from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.words import DELETED, Words, deleted, newest, row_of, tell, whole
from feature_repo.files import chunks
from feature_repo.online.lifetimes import GONE_S, LISTED
from feature_repo.online.rows import OnlineView

WORDS = f"endcap:words:{ITEM_CATALOGUE.name}".encode()
READ = 1_000  # rows that are watched at once
Said = tuple[str, int, Mapping[str, Any]]  # item, instant (us), row of `item_catalogue`


def read_words(redis: Any, view: OnlineView, items: Sequence[str]) -> list[tuple[Words, bool]]:
    """What was said of each item, and whether live: False where all is of an export, or nothing is known."""
    with redis.pipeline(transaction=False) as pipe:
        for item in items:
            pipe.hmget(view.key(item), [*view.fields, WORDS])
        return [_words(view, values) for values in pipe.execute()]


def _words(view: OnlineView, values: Sequence[bytes | None]) -> tuple[Words, bool]:
    held = view.decode(values[:-1])
    if held is None:
        return {}, False
    ts, row = held
    if values[-1]:
        words = {name: (at, value) for name, (at, value) in orjson.loads(values[-1]).items()}
        if newest(words) == ts:  # else another wrote a whole row since
            return words, True
    return {name: (ts, value) for name, value in whole(row).items()}, False


def write_words(pipe: Any, view: OnlineView, item: str, words: Words, exported: bool = False) -> None:
    """The row that follows, and its words; an item that is deleted goes in the end, another stays.

    Of an export the row alone is kept where it says it all; what was said live stays known as such.
    """
    key, gone = view.key(item), deleted(words)
    pipe.hset(key, mapping=view.encode(row_of(words), newest(words)))
    if (
        exported
        and len({ts for ts, _ in words.values()}) == 1
        and {*words} == {*whole(row_of(words))}
        and not gone
    ):
        pipe.hdel(key, WORDS)  # the row says it all
    else:
        pipe.hset(key, WORDS, orjson.dumps(words))
    if gone:
        pipe.expire(key, GONE_S)
        pipe.srem(LISTED, item)
    else:
        pipe.persist(key)
        pipe.sadd(LISTED, item)


def write_said(redis: Any, view: OnlineView, rows: Iterable[Said]) -> list[str]:
    """Take in what an export says, each row at its instant; the items whose row or stamp moved."""
    said = {item: (ts, whole(row)) for item, ts, row in rows}
    return _write(redis, view, said, exported=True)


def delist(redis: Any, view: OnlineView, items: Iterable[str], said: int) -> list[str]:
    """`items` are all that an export of the instant `said` (us) names: what else was listed is deleted then.

    Whatever was said of one later holds. Returns those that left.
    """
    known = set(items)
    left = sorted({raw.decode() for raw in redis.smembers(LISTED)} - known)
    told = {item: (said, {DELETED: True}) for item in left}
    parts = (dict(part) for part in chunks(list(told.items()), READ))
    return [item for part in parts for item in _write(redis, view, part)]


def _write(
    redis: Any, view: OnlineView, said: Mapping[str, tuple[int, Mapping[str, Any]]], exported: bool = False
) -> list[str]:
    """Take in fields that were said of items at an instant each; the items whose row or stamp moved.

    Beside consumers at work: a row that one changes between reading and writing is read again.
    """
    if not said:
        return []
    with redis.pipeline(transaction=True) as pipe:
        while True:
            try:
                pipe.watch(*(view.key(item) for item in said))
                moved = _told(redis, view, said)
                pipe.multi()
                for item, words, _ in moved:
                    write_words(pipe, view, item, words, exported)
                pipe.execute()
                return [item for item, _, other in moved if other]
            except WatchError:
                continue


def _told(
    redis: Any, view: OnlineView, said: Mapping[str, tuple[int, Mapping[str, Any]]]
) -> list[tuple[str, Words, bool]]:
    """(item, words, whether its row becomes another one) of those of which something new is said."""
    moved = []
    held = read_words(redis, view, [*said])
    for (item, (ts, fields)), (words, _) in zip(said.items(), held, strict=True):
        before = row_of(words) if words else None
        if tell(words, ts, fields):
            moved.append((item, words, row_of(words) != before))
    return moved
