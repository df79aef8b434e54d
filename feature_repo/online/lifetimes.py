"""How long a row stays in Redis: every key has an expiry, or an owner that takes it away.

rows of shoppers and visits   twice the age up to which they are read, from their last change on
an item of the catalogue      for ever; `endcap materialize` lets one go that left the catalogue
any other item                `stream.unlisted_hours` from its last event on: anybody can make up an id
"""

from collections.abc import Sequence
from typing import Any

from feature_repo.clock import DAY_S, HOUR_S
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.folds.fold import Fold

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
