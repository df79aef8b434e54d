"""What may be explored, in Redis: the products on offer, and how much of a day's budget is taken.

endcap:unseen          JSON {version, items}: written by `endcap unseen`, gone KEPT_S after the last time
endcap:explored:<day>  hash  surface -> slots that the workers have taken of the day's budget, UTC

Workers take slots before they use them, so that all of them together never show more than the cap; what a
worker has taken and not used when it ends, or when the day does, is lost.
"""

from typing import Any, NamedTuple

import orjson

UNSEEN_KEY, TAKEN = "endcap:unseen", "endcap:explored:"
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
    redis.set(UNSEEN_KEY, orjson.dumps(offer._asdict()), ex=KEPT_S)


def withdraw(redis: Any) -> None:
    """Nothing is on offer any more."""
    redis.delete(UNSEEN_KEY)


def on_offer(redis: Any) -> OnOffer:
    """What is on offer; version 0 for nothing."""
    raw = redis.get(UNSEEN_KEY)
    if raw is None:
        return OnOffer(0, ())
    found = orjson.loads(raw)
    return OnOffer(found["version"], tuple(found["items"]))


def take(redis: Any, day: int, surface: str, want: int, cap: int) -> int:
    """At most `want` slots of the surface's budget of `day` (days since 1970); fewer near the cap."""
    return int(redis.eval(_TAKE, 1, f"{TAKEN}{day}", surface, want, cap))
