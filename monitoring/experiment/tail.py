"""Reads on where it stopped: in the stream `endcap:exposures`, and in the log of events, wherever that is.

And what such an exposure holds.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import orjson
from redis import Redis

from feature_repo.clock import DAY_US
from feature_repo.eventlog.keys import StreamParams
from feature_repo.eventlog.open import open_tail
from feature_repo.params import load
from serving.release.state import EXPOSURES

BATCH = 5_000
MS_US = 1_000


@dataclass
class Outcome:
    """What happened to one clicked slot; times in microseconds UTC, None = not yet. `at` is arrival."""

    clicked_us: int
    at: int
    carted_us: int | None = None
    purchased_us: int | None = None
    revenue: float = 0.0


@dataclass(frozen=True)
class Exposure:
    """One list as served. `outcomes` holds the clicked items only."""

    request_id: str
    ts: int
    unit: str | None  # whom the router assigned; None: nobody, so not part of the experiment
    user_id: str | None
    session_id: str | None
    arm: str
    bundle: str
    surface: str
    items: tuple[str, ...]
    at: int  # arrival, us
    propensity: float = 1.0  # of what stands in the last slot
    explored: bool | None = None  # whether that slot is; None: it could not be
    variants: Mapping[str, str] = field(default_factory=dict, compare=False)  # of experiments, by flag
    flags: int = 0  # the version of the experiments; 0 of a list that is part of none
    rival: str | None = None  # the challenger of a list that two releases made
    teams: str = ""  # of such a list, a letter per slot (serving/beside/draft.py)
    outcomes: dict[str, Outcome] = field(default_factory=dict, compare=False)

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Self:
        """From a record of the stream `endcap:exposures`; fields that the join does not need are ignored."""
        needed = {name: record[name] for name in ("request_id", "arm", "surface")}
        maybe = ("unit", "user_id", "session_id", "explored", "rival")
        optional: dict[str, Any] = {name: record.get(name) for name in maybe}
        bundle, items = record.get("bundle") or "", tuple(map(sys.intern, record["items"]))
        ts = int(record["ts"])
        at, propensity = record.get("arrived_ts", ts), record.get("propensity", 1.0)
        optional |= {"variants": record.get("variants") or {}, "flags": record.get("flags") or 0}
        optional["teams"] = record.get("teams") or ""
        return cls(ts=ts, bundle=bundle, items=items, at=at, propensity=propensity, **needed, **optional)

    @property
    def day(self) -> int:
        """Days since 1970-01-01 UTC."""
        return self.ts // DAY_US

    def made_for(self, event: Mapping[str, Any]) -> bool:
        """Whether the event is of the session or user that asked; a list for nobody is anybody's."""
        own = (self.session_id, self.user_id)
        said = (event.get("session_id"), event.get("user_id"))
        return own == (None, None) or any(a is not None and a == b for a, b in zip(own, said, strict=True))

    @property
    def person(self) -> tuple[str, str, int, str]:
        """Who counts as one visitor: arm, surface, day, unit; each list to nobody is a visitor of its own."""
        return self.arm, self.surface, self.day, self.unit or self.request_id


class Fed(Protocol):
    """Who takes in what arrives: Feedback, or whoever counts by other rules."""

    def update(self, exposures: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
        """Records with `arrived_ts`, us."""


class Tail:
    """Feeds a Feedback from the logs, beginning after the stream id `since` ("0-0": everything kept).

    `events_since` is where the events begin, if elsewhere. The place is not stored anywhere: after a restart
    the guard reads its experiment again, from the beginning. An error in between loses nothing and doubles
    nothing: the place moves on only with what was handed over.
    """

    def __init__(self, redis: Redis, since: str = "0-0", events_since: str | None = None) -> None:
        self._redis: Any = redis
        self.exposures_at = since
        start = since if events_since is None else events_since
        self._events = open_tail(redis, load("stream", StreamParams), start, BATCH)
        self._lists: list[tuple[str, dict[str, Any]]] = []  # read and not yet handed over
        self._happened: list[dict[str, Any]] = []

    def feed(self, feedback: Fed, each: Callable[[], object] = lambda: None) -> int:
        """Take in all that has arrived; returns how many records. Exposures first: clicks refer to them.

        Neither log runs ahead of the other where one has more than fits: a list whose clicks are still to be
        read would be given up as too old. `each` is called after each batch. Errors of the logs' clients are
        raised as they are.
        """
        total = 0
        while True:
            self._lists = self._lists or self._exposures()
            self._happened = self._happened or [_arrived(event, ms) for ms, event in self._events.next()]
            if not self._lists and not self._happened:
                return total
            lists, events, left = self._lists, self._happened, []
            if lists and events:
                until = min(lists[-1][1]["arrived_ts"], max(event["arrived_ts"] for event in events))
                lists = [one for one in lists if one[1]["arrived_ts"] <= until]
                events = [event for event in events if event["arrived_ts"] <= until]
                left = [event for event in self._happened if event["arrived_ts"] > until]
            feedback.update([exposure for _, exposure in lists], events)
            self._lists, self._happened = self._lists[len(lists) :], left
            self.exposures_at = lists[-1][0] if lists else self.exposures_at
            total += len(lists) + len(events)
            each()

    def _exposures(self) -> list[tuple[str, dict[str, Any]]]:
        found = self._redis.xrange(EXPOSURES, min=f"({self.exposures_at}", count=BATCH)
        return [
            (
                number.decode(),
                _arrived(orjson.loads(fields[b"exposure"]), int(number.partition(b"-")[0])),
            )
            for number, fields in found
        ]


def _arrived(record: dict[str, Any], ms: int) -> dict[str, Any]:
    return record | {"arrived_ts": ms * MS_US}
