"""Reads on where it stopped: in the stream `endcap:exposures`, and in the log of events, wherever that is."""

from typing import Any

import orjson
from redis import Redis

from feature_repo.eventlog.keys import StreamParams
from feature_repo.eventlog.open import open_tail
from feature_repo.params import load
from monitoring.experiment.attribution import Feedback
from serving.live.exposures import EXPOSURES

BATCH = 5_000


class Tail:
    """Feeds a Feedback from the logs, beginning after the stream id `since` ("0-0": everything kept).

    The place is not stored anywhere: after a restart the guard reads its step again, from the step's
    beginning.
    """

    def __init__(self, redis: Redis, since: str = "0-0") -> None:
        self._redis: Any = redis
        self.exposures_at = since
        self._events = open_tail(redis, load("stream", StreamParams), since, BATCH)

    def feed(self, feedback: Feedback) -> int:
        """Take in all that has arrived; returns how many records. Exposures first: clicks refer to them."""
        total = 0
        while True:
            exposures = self._exposures()
            events = self._events.next()
            if not exposures and not events:
                return total
            feedback.update(exposures, events)
            total += len(exposures) + len(events)

    def _exposures(self) -> list[dict[str, Any]]:
        found = self._redis.xrange(EXPOSURES, min=f"({self.exposures_at}", count=BATCH)
        if found:
            self.exposures_at = found[-1][0].decode()
        return [orjson.loads(fields[b"exposure"]) for _, fields in found]
