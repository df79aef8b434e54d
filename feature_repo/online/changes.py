"""Which items' rows changed in Redis, so that a reader with a matrix fetches those and no others.

endcap:items:version    counts the announcements of changed activity
endcap:items:changed    sorted set, item id -> version of its last change; the last CHANGED_KEPT
endcap:items:floor      newest version that was taken out of it: who stands before it reads everything
endcap:items:listings   as `changed`, of rows of the catalogue that were changed live, with a floor of its own
endcap:items:catalogue  counts the rewrites of the whole catalogue: prices and stock
endcap:items:epoch      the generation: a new random name each time that all features were deleted
endcap:applied_ts       newest event_ts in the features, us: the clock of the data
"""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from feature_repo.errors import UnavailableError

VERSION, CHANGED, CATALOGUE = "endcap:items:version", "endcap:items:changed", "endcap:items:catalogue"
EPOCH, FLOOR = "endcap:items:epoch", "endcap:items:floor"
LISTINGS, LISTINGS_FLOOR = "endcap:items:listings", "endcap:items:listings_floor"
CHANGED_KEPT = 200_000  # some 20 MB; a reader looks twice a second
APPLIED_TS = "endcap:applied_ts"
EMPTY, MEND = "Redis is empty, or another one than before", "`endcap restore`"
ANNOUNCE, RAISE = (Path(__file__).with_name(f"{name}.lua").read_text() for name in ("announce", "raise"))


class Seen(NamedTuple):
    """How far a reader is."""

    version: int
    catalogue: int
    epoch: str = ""
    history: str = ""  # of Redis' replication: a replica that took over may have other rows at a version


def announce(redis: Any, items: Sequence[str]) -> None:
    """Announce changed rows; `redis` is a client, or a pipeline whose transaction also writes the rows."""
    if items:
        redis.eval(ANNOUNCE, 3, VERSION, CHANGED, FLOOR, CHANGED_KEPT, *items)


def announce_listings(redis: Any, items: Sequence[str]) -> None:
    """Likewise of rows of the catalogue."""
    if items:
        redis.eval(ANNOUNCE, 3, VERSION, LISTINGS, LISTINGS_FLOOR, CHANGED_KEPT, *items)


def seen(redis: Any) -> Seen:
    """Where a reader stands that now reads everything."""
    return _seen(redis.mget(VERSION, CATALOGUE, EPOCH), redis.info("replication"))


class News(NamedTuple):
    """What changed: items by their activity and by the catalogue; None: any of them may have."""

    seen: Seen  # where the reader stands afterwards
    items: list[str] | None
    listings: list[str] | None


def since(redis: Any, before: Seen) -> News:
    """What changed since `before`.

    Raises UnavailableError where the features that there were are gone: what was read of them is better.
    """
    with redis.pipeline(transaction=True) as pipe:
        pipe.mget(VERSION, CATALOGUE, EPOCH, FLOOR, LISTINGS_FLOOR)
        for changed in (CHANGED, LISTINGS):
            pipe.zrangebyscore(changed, f"({before.version}", "+inf")
        pipe.info("replication")
        (*marks, floor, listings_floor), items, listings, replication = pipe.execute()
    now = _seen(marks, replication)
    if before.epoch and not now.epoch:
        raise UnavailableError(EMPTY, next_step=MEND)
    begun_again = now.epoch != before.epoch or before.history not in ("", now.history)
    if begun_again or now.version < before.version:
        return News(now, None, None)
    anew = now.catalogue != before.catalogue or before.version < int(listings_floor or 0)
    return News(
        now,
        None if before.version < int(floor or 0) else [item.decode() for item in items],
        None if anew else [item.decode() for item in listings],
    )


def mark(redis: Any) -> None:
    """Say that this Redis holds features: who finds no mark stands before an empty one, or another.

    It has another name than any mark before, so that a reader keeps nothing of rows that were deleted.
    """
    redis.set(EPOCH, uuid.uuid4().hex, nx=True)


def marked(redis: Any) -> bool:
    """False where no features were ever written, or all were lost."""
    return bool(redis.exists(EPOCH))


def _seen(marks: Sequence[bytes | None], replication: Mapping[str, Any]) -> Seen:
    version, catalogue, epoch = marks
    history = replication.get("master_replid", "")
    return Seen(int(version or 0), int(catalogue or 0), epoch.decode() if epoch else "", history)


def applied_ts(redis: Any) -> int:
    """Newest event_ts in the features, us; 0 before the first."""
    return int(redis.get(APPLIED_TS) or 0)


def raise_applied_ts(redis: Any, ts: int) -> None:
    """The features hold events up to `ts` (us); never goes back."""
    redis.eval(RAISE, 1, APPLIED_TS, ts)
