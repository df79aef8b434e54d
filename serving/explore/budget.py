"""What may be explored, in Redis: the products on offer, and how much of a day's budget is taken.

endcap:unseen          JSON {version, items}: written by `endcap unseen`, gone KEPT_S after the last time
endcap:unseen:shown    list  those of them that any worker has shown since, as they were shown
endcap:explored:<day>  hash  surface -> slots that the workers have taken of the day's budget, UTC

Workers take slots before they use them, so that all of them together never show more than the cap; what a
worker has taken and not used when it ends, or when the day does, is lost.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

UNSEEN_KEY, SHOWN_KEY, TAKEN = "endcap:unseen", "endcap:unseen:shown", "endcap:explored:"
KEPT_S = 7 * 86_400
_TAKE = """
local used = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
local got = math.max(math.min(tonumber(ARGV[2]), tonumber(ARGV[3]) - used), 0)
if got > 0 then
    redis.call('HINCRBY', KEYS[1], ARGV[1], got)
    redis.call('EXPIRE', KEYS[1], 172800)
end
return got
"""


class OnOffer(NamedTuple):
    """Item ids, and the instant (us) as of which nobody had seen them."""

    version: int
    items: tuple[str, ...]


def publish(redis: Any, offer: OnOffer) -> None:
    """Put these products on offer in the place of all others."""
    told = redis.pipeline().set(UNSEEN_KEY, orjson.dumps(offer._asdict()), ex=KEPT_S)
    told.delete(SHOWN_KEY).execute()


def withdraw(redis: Any) -> None:
    """Nothing is on offer any more."""
    redis.delete(UNSEEN_KEY, SHOWN_KEY)


def exchanged(redis: Any, shown: Sequence[str], known: OnOffer, read: int) -> tuple[OnOffer, list[str]]:
    """Tell what this worker has shown; what is on offer (version 0: nothing), and what all have shown.

    Of the latter the first `read` are left out where `known` is still on offer.
    """
    asked = redis.pipeline()  # one transaction: no list of one offer is read as another's
    if shown:
        asked.rpush(SHOWN_KEY, *shown).expire(SHOWN_KEY, KEPT_S)
    *_, raw, others = asked.get(UNSEEN_KEY).lrange(SHOWN_KEY, read, -1).execute()
    held: dict[str, Any] = {"version": 0, "items": []} if raw is None else orjson.loads(raw)
    found = OnOffer(held["version"], tuple(held["items"]))
    if found != known and read:
        return exchanged(redis, (), found, 0)
    return found, [item.decode() for item in others]


def take(redis: Any, day: int, surface: str, want: int, cap: int) -> int:
    """At most `want` slots of the surface's budget of `day` (days since 1970); fewer near the cap."""
    return int(redis.eval(_TAKE, 1, f"{TAKEN}{day}", surface, want, cap))
