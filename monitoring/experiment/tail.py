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

    def feed(self, feedback: Fed, each: Callable[[], object] = lambda: None) -> int:
        """Take in all that has arrived; returns how many records. Exposures first: clicks refer to them.

        `each` is called after each batch. Errors of the logs' clients are raised as they are.
        """
        total = 0
        while True:
            at, exposures = self._exposures()
            events = [_arrived(event, ms) for ms, event in self._events.next()]
            self.exposures_at = at
            if not exposures and not events:
                return total
            feedback.update(exposures, events)
            total += len(exposures) + len(events)
            each()

    def _exposures(self) -> tuple[str, list[dict[str, Any]]]:
        found = self._redis.xrange(EXPOSURES, min=f"({self.exposures_at}", count=BATCH)
        exposures = [
            _arrived(orjson.loads(fields[b"exposure"]), int(number.partition(b"-")[0]))
            for number, fields in found
        ]
        return found[-1][0].decode() if found else self.exposures_at, exposures


def _arrived(record: dict[str, Any], ms: int) -> dict[str, Any]:
    return record | {"arrived_ts": ms * MS_US}
