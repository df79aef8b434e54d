"""Reads on where it stopped: in the stream `endcap:exposures`, and in the log of events, wherever that is."""

from collections.abc import Callable
from typing import Any, Protocol

import orjson
from redis import Redis

from feature_repo.eventlog.keys import StreamParams
from feature_repo.eventlog.open import open_tail
from feature_repo.params import load
from serving.release.state import EXPOSURES

BATCH = 5_000
MS_US = 1_000


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
            lists, events = self._lists, self._happened
            if lists and events:
                until = min(lists[-1][1]["arrived_ts"], max(event["arrived_ts"] for event in events))
                lists = [one for one in lists if one[1]["arrived_ts"] <= until]
                events = [event for event in events if event["arrived_ts"] <= until]
                self._happened = [event for event in self._happened if event["arrived_ts"] > until]
            else:
                self._happened = []
            self._lists = self._lists[len(lists) :]
            self.exposures_at = lists[-1][0] if lists else self.exposures_at
            feedback.update([exposure for _, exposure in lists], events)
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
