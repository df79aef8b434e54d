"""Who was shown a list lately, and in which contexts, by what the service has logged."""

from collections import Counter
from typing import Any, NamedTuple

import orjson
from redis import Redis

from feature_repo.clock import HOUR_US
from serving.live.exposures import SERVED
from serving.rails.rail import RailParams, cohort_of, unit
from serving.release.state import EXPOSURES
from serving.types import Context

BATCH = 1_000
SAMPLED = 3_000  # of the log of samples, which alone tells contexts


class Seen(NamedTuple):
    """A shopper, or a visit without one, at the newest list that was shown."""

    user_id: str | None
    session_id: str | None


def lately(redis: Redis, now: int, params: RailParams) -> dict[str, Seen]:
    """Unit -> who, newest first, at most `params.shoppers`, seen in `params.seen_hours` before `now` (us)."""
    found: dict[str, Seen] = {}
    last = "+"
    while True:
        entries: Any = redis.xrevrange(EXPOSURES, max=last, count=BATCH)
        for number, fields in entries:
            shown = orjson.loads(fields[b"exposure"])
            if shown["ts"] < now - params.seen_hours * HOUR_US or len(found) >= params.shoppers:
                return found
            who = Seen(shown["user_id"], shown["session_id"])
            if name := unit(*who):
                found.setdefault(name, who)
            last = f"({number.decode()}"
        if len(entries) < BATCH:
            return found


def contexts(redis: Redis, most: int) -> list[Context]:
    """The `most` pairs of device and country that are asked from most often, and nothing known."""
    counts: Counter[str] = Counter()
    examples: dict[str, Context] = {"|": Context()}
    entries: Any = redis.xrevrange(SERVED, count=SAMPLED)
    for _, fields in entries:
        judged = orjson.loads(fields[b"meta"]).get("judged") or {}
        told = judged.get("context") or {}
        context = Context(device=told.get("device"), country=told.get("country"))
        counts[cohort_of(context)] += 1
        examples.setdefault(cohort_of(context), context)
    names = [name for name, _ in counts.most_common(most)]
    return [examples[name] for name in dict.fromkeys([*names, "|"])]
