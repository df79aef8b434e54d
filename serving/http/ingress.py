"""POST /v1/events: checked at the door, each event_id once, into the partition of its visit.

202 {accepted, duplicates, rejected: [{index, event_id, error}]}       duplicates count as accepted
422 the same, where none was accepted
503 with Retry-After: the log is away, has no room, or its readers are too far behind; send all of it again
"""

import asyncio
import logging
import uuid
from collections import Counter as Counts
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from prometheus_client import Counter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_repo.clock import DAY_US, SECOND_US, instant
from feature_repo.errors import EventError, UnavailableError, shorten
from feature_repo.eventlog.contract import EventWriter, Written
from feature_repo.eventlog.keys import order
from feature_repo.events import NAMES, check_event, is_id
from feature_repo.persons.pseudonyms import Persons
from serving import prometheus
from serving.access.counting import Source, Verdicts
from serving.access.credentials import PROVEN
from serving.errors import RequestError
from serving.http.requests import parse_instant, parse_object, require_id
from serving.http.waiting import Waiters
from serving.live.complaints import Complaints, cause_of
from serving.live.disk import Disk
from serving.params import Serving

ALONGSIDE = ("events", "sent_at", "user_proof")
YIELD_EVERY = 50  # events checked before others have their turn: 1 ms

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a POST; `last` is the newest position of the accepted events in each partition."""

    accepted: int
    duplicates: int | None  # None where nothing is known as sent before
    rejected: tuple[dict[str, Any], ...]
    last: Mapping[int, str]
    uncounted: Mapping[str, int] = field(default_factory=dict)  # reason -> how many of the accepted

    def body(self, applied: bool | None = None) -> bytes:
        """JSON; `applied` only for ?wait=1: whether the accepted events are in the features."""
        found: dict[str, Any] = {"accepted": self.accepted}
        found |= {} if self.duplicates is None else {"duplicates": self.duplicates}
        found["rejected"] = self.rejected
        found |= {"uncounted": self.uncounted} if self.uncounted else {}
        return orjson.dumps(found if applied is None else {**found, "applied": applied})


class Clock(NamedTuple):
    """What an event's time is held against: an instant each, us since 1970; `shift` in us."""

    now: int  # of an event without a time
    learned: int  # the wall clock; another than `now` in a replay only
    earliest: int
    latest: int
    shift: int = 0  # how far the sender's clock is behind ours


def parse_events(body: bytes, max_events: int) -> tuple[list[Any], int | None, str | None]:
    """The list in {"events": [...]}, and, if given, `sent_at` (us) and `user_proof`; else RequestError."""
    fields = parse_object(body, halves=True)
    for name in fields:
        if name not in ALONGSIDE:
            raise RequestError(name, fields[name], f"the fields {', '.join(ALONGSIDE)}", next_step="drop it")
    events = fields.get("events")
    if not isinstance(events, list) or not 1 <= len(events) <= max_events:
        found = f"{len(events)} events" if isinstance(events, list) else events
        raise RequestError("events", found, f"a list of 1 to {max_events} events")
    if (proof := fields.get("user_proof")) is not None:
        require_id("user_proof", proof)
    return events, parse_instant("sent_at", fields.get("sent_at")), proof


def canonical(raw: Any, clock: Clock) -> dict[str, Any]:
    """The event as data/raw has it, `event_ts` and `created_ts` in us; raises EventError.

    `ts` is another name for `event_ts`; without either the event happened now. Without `event_id` it gets a
    random one: such an event cannot be resent safely.
    """
    if not isinstance(raw, dict):
        raise EventError("event", raw, "an object")
    whole_texts(raw)
    event = {name: value for name, value in raw.items() if value is not None}
    if "ts" in event:
        if "event_ts" in event:
            raise EventError("ts", event["ts"], "either ts or event_ts")
        event["event_ts"] = event.pop("ts")
    if "created_ts" in event:
        raise EventError("created_ts", event["created_ts"], "nothing: it is set here")
    try:
        told = parse_instant("event_ts", given := event.get("event_ts"))
    except RequestError as error:
        raise EventError("event_ts", given, error.allowed) from None
    event.setdefault("event_id", uuid.uuid4().hex)
    event.setdefault("consent", True)
    ts = clock.now if told is None else told + clock.shift
    if ts < clock.earliest:
        step = "leave event_ts out, or say in sent_at what the device's clock showed when it sent this"
        allowed = f"from {instant(clock.earliest).isoformat()}; {step}"
        raise EventError("event_ts", instant(ts).isoformat(), allowed)
    check_event({**event, "event_ts": instant(ts)}, instant(clock.latest))
    return {name: event.get(name) for name in NAMES} | {"event_ts": ts, "created_ts": clock.learned}


class Ingress:
    """The door for live events."""

    def __init__(
        self,
        redis: Redis,
        writer: EventWriter,
        params: Serving,
        disk: Disk | None = None,
        replay: bool = False,
        verdicts: Verdicts | None = None,
        persons: Persons | None = None,
    ) -> None:
        """In a replay every event counts, as it did when it happened."""
        self._verdicts = None if replay else verdicts
        self._disk, self._replay, self._persons = disk, replay, persons or Persons()
        self.writer, self._params = writer, params
        self.waiters = Waiters(redis, params.max_waiters)
        self._complain = Complaints(log)

    def clock(self, now: int, learned: int, sent_at: int | None = None) -> Clock:
        """What times are held against. A device whose clock is off by more than the skew is set right.

        In a replay the shop lives in its data's time: the past is what it is, and one event moves it on by
        `replay_ahead_s` at most, whatever the wall clock says.
        """
        skew = self._params.clock_skew_s * SECOND_US
        shift = 0 if sent_at is None or abs(now - sent_at) <= skew else now - sent_at
        if self._replay:
            return Clock(now, learned, 0, now + self._params.replay_ahead_s * SECOND_US, shift)
        return Clock(now, learned, now - self._params.late_days * DAY_US, now + skew, shift)

    async def accept(self, raw: Sequence[Any], clock: Clock, source: Source | None = None) -> Receipt:
        """Check each event and write the good ones, with pseudonyms; those of an erased person are let go.

        Raises RequestError 429 where the `source` tells more than it may, UnavailableError when the log does
        not take the events in time, or too many wait to be applied: the client keeps them and sends all
        again, which is safe with an event_id. Without a source nobody asks whether they count.
        """
        self.require_room(prometheus.EVENTS, len(raw))
        verdicts_s = 0.0
        good: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        erased = 0
        for index, event in enumerate(raw):
            if index % YIELD_EVERY == YIELD_EVERY - 1:
                await asyncio.sleep(0)
            try:
                entry = canonical(event, clock)
                if source and not source.owns(entry["user_id"]):
                    raise EventError("user_id", entry["user_id"], PROVEN)
                if self._persons.enter(entry):
                    good.append(entry)
                else:
                    erased += 1
            except EventError as error:
                rejected.append({"index": index, "event_id": named(event, "event_id"), "error": str(error)})
        reasons: Counts[str] = Counts()
        if self._verdicts and source:  # also where none is good: whoever tells is charged for what is told
            began = asyncio.get_running_loop().time()
            reasons.update(filter(None, await self._verdicts.stamp(good, source, clock.now)))
            verdicts_s = asyncio.get_running_loop().time() - began
        written = await self.stored(self.writer.write, good, prometheus.EVENTS, verdicts_s)
        duplicates = sum(one.twice for one in written)
        fresh = len(good) - duplicates
        counts = {
            "accepted": fresh,
            "duplicate": duplicates,
            "rejected": len(rejected),
            "erased": erased,
        }
        for outcome, count in counts.items():
            if count:
                prometheus.EVENTS.labels(outcome).inc(count)
        return Receipt(len(good) + erased, duplicates, tuple(rejected), newest_of(written), reasons)

    def require_room(self, count: Counter, many: int) -> None:
        """Raise UnavailableError while the disk has none; `count` learns of the `many` that are refused."""
        if self._disk and self._disk.refusal:
            count.labels("unavailable").inc(many)
            raise self._disk.refusal.with_traceback(None)  # else it grows by every request that it refuses

    async def stored(
        self,
        write: Callable[[Sequence[dict[str, Any]]], Awaitable[list[Written]]],
        good: Sequence[dict[str, Any]],
        count: Counter,
        waited_s: float = 0.0,
    ) -> list[Written]:
        """Where `write` put the entries `good`, in time; `count` learns of those that it could not.

        `waited_s` of that time is gone already.
        """
        try:
            async with asyncio.timeout(self._params.write_deadline_ms / 1000 - waited_s):
                return await write(good)
        except (UnavailableError, RedisError, OSError, TimeoutError) as error:
            count.labels("unavailable").inc(len(good))
            if isinstance(error, UnavailableError):
                prometheus.NOT_STORED.labels("backlog").inc()
                raise
            prometheus.NOT_STORED.labels(cause := cause_of(error)).inc()
            self._complain(f"storing events ({cause})", error)
            raise UnavailableError(f"events cannot be stored ({cause})") from None

    async def publish_lag(self) -> float:
        """Bring the metrics of the consumers' lag up to date; the longest delay, in seconds.

        Seen from here, it is told without the consumers too.
        """
        found = await self.writer.lag()
        for group, behind in found.items():
            prometheus.BEHIND_EVENTS.labels(group).set(behind.events)
            prometheus.BEHIND_SECONDS.labels(group).set(behind.seconds)
        return max(behind.seconds for behind in found.values())


def newest_of(written: Iterable[Written]) -> dict[int, str]:
    """The newest position of each partition."""
    last: dict[int, str] = {}
    for partition, position, _ in written:
        last[partition] = max(last.get(partition, position), position, key=order)
    return last


def whole_texts(raw: Mapping[str, Any]) -> None:
    """Raise EventError for a text with half a character, such as an emoji that was cut in two."""
    texts = [*raw, *raw.values()]
    for inner in raw.values():  # the one level that a field may have
        texts += inner if isinstance(inner, list) else ()
    for text in texts:
        if isinstance(text, str) and not _whole(text):
            allowed = "whole characters: an emoji was cut in two; cut texts between characters"
            raise EventError("event", "text with half a character", allowed)


def _whole(text: str) -> bool:
    """False for a text with a lone surrogate, which UTF-8 cannot write."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def named(event: Any, field: str) -> str | None:
    """Its id for the answer, if there is one to name."""
    name = event.get(field) if isinstance(event, dict) else None
    return name if name is None or (is_id(name) and _whole(name)) else shorten(name)
