"""How long a row stays in Redis: every key has an expiry, or an owner that takes it away.

rows of shoppers and visits   twice the age up to which they are read, from their last change on
an item of the catalogue      for ever; `endcap materialize` lets one go that left the catalogue
any other item                `stream.unlisted_hours` from its last event on: anybody can make up an id
"""

from collections.abc import Iterable, Sequence
from typing import Any

from feature_repo.clock import DAY_S, HOUR_S
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.folds.fold import Fold
from feature_repo.online.rows import OnlineView, read_rows, write_newer

LISTED = "endcap:items:listed"  # set: the items of the catalogue
GONE_S = 2 * 365 * DAY_S  # a release knows an item for some time after it left the catalogue

# KEYS: hashes of items; ARGV: field that a row of the catalogue has, seconds
UNLISTED = """
for i = 1, #KEYS do
  if redis.call('HEXISTS', KEYS[i], ARGV[1]) == 0 then redis.call('EXPIRE', KEYS[i], ARGV[2]) end
end
"""


def expire(pipe: Any, declared: Fold, keys: Sequence[bytes], unlisted_hours: int, listed: bytes) -> None:
    """Give the rows at `keys`, just written by `pipe`, their lifetime.

    `listed` is the field in which a row of the catalogue has its stamp: only listed items have one.
    """
    if not keys or not declared.types:
        return
    if declared.key == ITEM_CATALOGUE.key:
        pipe.eval(UNLISTED, len(keys), *keys, listed, unlisted_hours * HOUR_S)
        return
    for key in keys:
        pipe.expire(key, 2 * declared.max_age_days * DAY_S)


def list_items(redis: Any, view: OnlineView, items: Iterable[str], said: int) -> list[str]:
    """`items` are now the whole catalogue, as it was said at `said` (us); those that left it.

    One that left has no stock any more, for a release may still know it, and goes after GONE_S.
    """
    known = set(items)
    left = sorted({raw.decode() for raw in redis.smembers(LISTED)} - known)
    held = zip(left, read_rows(redis, view, left), strict=True) if left else ()
    sold_out = [(item, said, {**found[1], "stock": 0}) for item, found in held if found and found[0] <= said]
    write_newer(redis, view, sold_out)
    with redis.pipeline(transaction=True) as pipe:
        for item, _, _ in sold_out:
            pipe.expire(view.key(item), GONE_S)
            pipe.srem(LISTED, item)
        for item in known:
            pipe.persist(view.key(item))
        if known:
            pipe.sadd(LISTED, *known)
        pipe.execute()
    return [item for item, _, _ in sold_out]
