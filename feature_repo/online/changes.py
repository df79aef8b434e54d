"""Which items' rows changed in Redis, so that a reader with a matrix fetches those and no others.

endcap:items:version    counts the announcements of changed activity
endcap:items:changed    sorted set, item id -> version of its last change
endcap:items:catalogue  counts the rewrites of the catalogue: prices and stock
endcap:items:epoch      a new random name each time that all features were deleted
endcap:applied_ts       newest event_ts in the features, us: the clock of the data
"""

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

VERSION, CHANGED, CATALOGUE = "endcap:items:version", "endcap:items:changed", "endcap:items:catalogue"
EPOCH = "endcap:items:epoch"
APPLIED_TS = "endcap:applied_ts"
ANNOUNCE, RAISE = (Path(__file__).with_name(f"{name}.lua").read_text() for name in ("announce", "raise"))


class Seen(NamedTuple):
    """How far a reader is."""

    version: int
    catalogue: int
    epoch: str = ""


def announce(redis: Any, items: Sequence[str]) -> None:
    """Announce changed rows; `redis` is a client, or a pipeline whose transaction also writes the rows."""
    if items:
        redis.eval(ANNOUNCE, 2, VERSION, CHANGED, *items)


def seen(redis: Any) -> Seen:
    """Where a reader stands that now reads everything."""
    return _seen(redis.mget(VERSION, CATALOGUE, EPOCH))


def since(redis: Any, before: Seen) -> tuple[Seen, list[str] | None]:
    """(where the reader stands afterwards, items whose row changed since `before`; None: any of them)."""
    with redis.pipeline(transaction=True) as pipe:
        pipe.mget(VERSION, CATALOGUE, EPOCH)
        pipe.zrangebyscore(CHANGED, f"({before.version}", "+inf")
        marks, found = pipe.execute()
    now = _seen(marks)
    if now.epoch != before.epoch or now.version < before.version:  # the features began again
        return now, None
    return now, [item.decode() for item in found]


def begin_anew(redis: Any) -> None:
    """All features were deleted: no reader may keep what it holds."""
    redis.set(EPOCH, uuid.uuid4().hex)


def _seen(marks: Sequence[bytes | None]) -> Seen:
    version, catalogue, epoch = marks
    return Seen(int(version or 0), int(catalogue or 0), epoch.decode() if epoch else "")


def applied_ts(redis: Any) -> int:
    """Newest event_ts in the features, us; 0 before the first."""
    return int(redis.get(APPLIED_TS) or 0)


def raise_applied_ts(redis: Any, ts: int) -> None:
    """The features hold events up to `ts` (us); never goes back."""
    redis.eval(RAISE, 1, APPLIED_TS, ts)
