"""What those who watch leave in Redis: that they live, and what they saw. Only this module knows these keys.

endcap:guard   hash    `at_us`, when a guard looked last (Redis' clock), `beats`, how often one did, and
                       `alarm`, why the clicks may not decide (empty: they may)
endcap:looks   stream  one entry per look that saw something new, the last LOOKS_KEPT
endcap:alarms  hash    thing -> what the console's lookout (monitoring/alerting) tells of it
endcap:alarms:turn     whose turn it is to look: of two consoles one; also a heartbeat
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from redis import Redis

from feature_repo.clock import SECOND_US
from serving import prometheus

GUARD, LOOKS = "endcap:guard", "endcap:looks"
LOOKS_KEPT = 20_000  # approximately
ALARMS, TURN = "endcap:alarms", "endcap:alarms:turn"
ALARMED = ("rollback", "retrain", "consumers", "unseen", "drift", "holdout", "disk")  # kinds of looks


@dataclass(frozen=True)
class Beat:
    """The guard's last sign of life. `beats` moves on with each, whatever the clocks do."""

    beats: int
    age_s: float
    alarm: str


def beat(redis: Redis, alarm: str | None = None) -> None:
    """A guard lives; None leaves the alarm as it is. Several guards may beat."""
    seconds, micros = redis.time()  # type: ignore[misc]
    now = {"at_us": seconds * SECOND_US + micros}
    pipe = redis.pipeline()
    pipe.hset(GUARD, mapping=now if alarm is None else now | {"alarm": alarm})
    pipe.hincrby(GUARD, "beats", 1)
    pipe.execute()


def read_beat(redis: Redis) -> Beat | None:
    """None where no guard ever looked.

    A beat from ahead of Redis' clock was written before that clock was set back: it counts as so old.
    """
    found: Any = redis.hgetall(GUARD)
    if not found:
        return None
    values = {_text(name): _text(value) for name, value in found.items()}
    seconds, micros = redis.time()  # type: ignore[misc]
    age_us = abs(seconds * SECOND_US + micros - int(values["at_us"]))
    return Beat(int(values.get("beats", 0)), age_us / SECOND_US, values.get("alarm", ""))


def guard_age_s(redis: Redis) -> float | None:
    """Seconds since a guard looked last; None where none ever did."""
    found = read_beat(redis)
    return found.age_s if found else None


def record_look(redis: Redis, look: Mapping[str, Any]) -> None:
    """One look of the guard, with its numbers; the console draws the last LOOKS_KEPT."""
    redis.xadd(LOOKS, {"look": orjson.dumps(look)}, maxlen=LOOKS_KEPT, approximate=True)


def read_looks(redis: Redis, count: int = 1000) -> list[dict[str, Any]]:
    """The latest looks of the guard, oldest first; `at_us` is Redis' clock."""
    looks: Any = redis.xrevrange(LOOKS, count=count)
    return [
        orjson.loads(_text(look)) | {"at_us": int(_text(stream_id).partition("-")[0]) * 1000}
        for stream_id, fields in reversed(looks)
        for look in fields.values()
    ]


def _text(value: Any) -> str:
    """Redis answers in bytes or in text, as its client was built."""
    return value.decode() if isinstance(value, bytes) else str(value)


def publish_alarms(redis: Redis) -> None:
    """What the lookout found, and that it lives, for Prometheus; raises redis' errors."""
    told: Any = redis.hvals(ALARMS)
    found = {alarm["kind"] for alarm in map(orjson.loads, told) if not alarm["over"]}
    for kind in ALARMED:
        prometheus.ALARM.labels(kind).set(kind in found)
    prometheus.LOOKOUT.set(bool(redis.exists(TURN)))
