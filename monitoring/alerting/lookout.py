"""Who looks for trouble and tells it: once when it begins, once when it is over, until it was heard.

What is told is in Redis, so a restart forgets nothing and repeats nothing. A message that the receiver does
not take is sent again after a pause that doubles; after `tries` it stays on the console, marked as unheard.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
from redis import Redis, RedisError

from monitoring.alerting.troubles import AlarmParams, Look, Trouble, as_json
from serving.release.looks import ALARMS, TURN

LATE = 6  # looks that may be missed before another takes the turn
log = logging.getLogger(__name__)


class Post(Protocol):
    """Why a message was not taken; empty: it was."""

    def __call__(self, message_id: str, body: bytes, now_s: float) -> str: ...


@dataclass(frozen=True)
class Alarm:
    """A trouble that was found; times in seconds since 1970. `heard`: the receiver knows that it began."""

    thing: str
    kind: str  # of the looks, the one that found it
    told: str
    next: str
    numbers: Mapping[str, Any]
    since_s: float
    id: str
    heard: bool = False
    missing_s: float | None = None  # since when no look found it
    over: bool = False
    tries: int = 0
    due_s: float = 0.0
    failure: str = ""  # of the last try


class Lookout:
    """`looks`: kind -> look. `post`: None where no webhook is configured, then only the console shows it."""

    def __init__(
        self, redis: Redis, looks: Mapping[str, Look], params: AlarmParams, shop: str, post: Post | None
    ) -> None:
        self._redis, self._looks, self._params = redis, looks, params
        self._shop, self._post = shop, post
        self._me = secrets.token_hex(8)

    def run(self, stopping: threading.Event, clock: Callable[[], float]) -> None:
        """Look every `every_s`; whatever a look raises, the next one is taken."""
        while not stopping.is_set():
            try:
                self.look(clock())
            except RedisError as error:
                log.warning("alarms: Redis did not answer (%s); the next look goes on", type(error).__name__)
            except Exception:
                log.exception("alarms: a look failed; the next look goes on")
            stopping.wait(self._params.every_s)

    def look(self, now_s: float) -> None:
        """One look at all, and what is due is told; nothing while it is another's turn. Raises RedisError."""
        if not self._my_turn():
            return
        held = {alarm.thing: alarm for alarm in alarms(self._redis)}
        for kind, look in self._looks.items():
            mine = {thing: alarm for thing, alarm in held.items() if alarm.kind == kind}
            try:
                found = {trouble.thing: trouble for trouble in look()}
            except (OSError, ValueError, KeyError, RedisError) as error:
                log.info("alarms: %s cannot be looked at (%s)", kind, type(error).__name__)
                continue
            for thing in mine.keys() | found.keys():
                self._keep(mine.get(thing), self._after(mine.get(thing), found.get(thing), kind, now_s))
        for alarm in alarms(self._redis):
            self._tell(alarm, now_s)

    def _after(self, held: Alarm | None, found: Trouble | None, kind: str, now_s: float) -> Alarm | None:
        """What is known of a thing after a look that `found` it, or did not."""
        if found and (held is None or held.over):
            told = as_json(found)
            return Alarm(**told, kind=kind, since_s=now_s, id=f"msg_{secrets.token_hex(12)}")
        if held is None or held.over:
            return held
        if found:  # the numbers of now for the console; what was told is not told again
            return replace(held, **as_json(found), missing_s=None)
        since = min(held.missing_s or now_s, now_s)
        if now_s - since < self._params.over_s:
            return replace(held, missing_s=since)
        over = replace(held, missing_s=since, over=True, id=f"msg_{secrets.token_hex(12)}")
        return replace(over, tries=0, due_s=0.0, failure="")

    def _tell(self, alarm: Alarm, now_s: float) -> None:
        if self._post is None:
            if alarm.over:
                self._keep(alarm, None)
            return
        pause = alarm.due_s - now_s
        waits = 0 < pause <= self._params.longest_retry_s  # longer: the clock was set back
        if waits or (alarm.heard and not alarm.over) or alarm.tries >= self._params.tries:
            return
        failure = self._post(alarm.id, message(alarm, self._shop, now_s), now_s)
        if not failure:
            self._keep(alarm, None if alarm.over else replace(alarm, heard=True, failure=""))
            return
        tries = alarm.tries + 1
        pause = min(self._params.first_retry_s * 2**alarm.tries, self._params.longest_retry_s)
        log.warning("alarms: %s was not delivered (try %d: %s)", alarm.thing, tries, failure)
        given_up = alarm.over and tries >= self._params.tries
        tried = replace(alarm, tries=tries, due_s=now_s + pause, failure=failure)
        self._keep(alarm, None if given_up else tried)

    def _keep(self, before: Alarm | None, after: Alarm | None) -> None:
        if after is None and before is not None:
            self._redis.hdel(ALARMS, before.thing)
        elif after is not None and after != before:
            self._redis.hset(ALARMS, after.thing, orjson.dumps(asdict(after)).decode())

    def _my_turn(self) -> bool:
        """True for one lookout at a time."""
        life_ms = round(silent_s(self._params) * 1000)
        if self._redis.set(TURN, self._me, nx=True, px=life_ms):
            return True
        held: Any = self._redis.get(TURN)
        if held is None or (held.decode() if isinstance(held, bytes) else held) != self._me:
            return False
        return bool(self._redis.pexpire(TURN, life_ms))


def message(alarm: Alarm, shop: str, now_s: float) -> bytes:
    """The body, as Standard Webhooks has it: type, timestamp, data."""
    data = {name: getattr(alarm, name) for name in ("thing", "told", "next", "numbers")}
    data |= {"shop": shop, "since": _when(alarm.since_s)}
    data |= {"until": _when(alarm.missing_s)} if alarm.over and alarm.missing_s else {}
    kind = "alarm.over" if alarm.over else "alarm.raised"
    return orjson.dumps({"type": kind, "timestamp": _when(now_s), "data": data})


def alarms(redis: Redis) -> list[Alarm]:
    """What was found and is not over, or not heard yet; the oldest first."""
    found: Any = redis.hvals(ALARMS)
    return sorted((Alarm(**orjson.loads(text)) for text in found), key=lambda alarm: alarm.since_s)


def silent_s(params: AlarmParams) -> float:
    """After so many seconds without a look another lookout may take the turn."""
    return LATE * params.every_s


def age_s(redis: Redis, params: AlarmParams) -> float:
    """Seconds since the last look; `silent_s` where none was so lately."""
    left_ms: Any = redis.pttl(TURN)
    return silent_s(params) - max(left_ms, 0) / 1000


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
