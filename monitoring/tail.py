"""Reads on where it stopped in the two live streams, `endcap:exposures` and `endcap:events`."""

from __future__ import annotations

from typing import Any

import orjson
from redis import Redis

from monitoring.feedback import Feedback

EXPOSURES, EVENTS = "endcap:exposures", "endcap:events"
BATCH = 5_000


class Tail:
    """Feeds a Feedback from the streams, beginning after the stream id `since` ("0-0": everything kept).

    The place is not stored anywhere: after a restart the guard reads its step again, from the step's
    beginning.
    """

    def __init__(self, redis: Redis, since: str = "0-0") -> None:
        self._redis = redis
        self.exposures_id, self.events_id = since, since

    def feed(self, feedback: Feedback) -> int:
        """Take in all that has arrived; returns how many records. Exposures first: clicks refer to them."""
        total = 0
        while True:
            exposures, self.exposures_id = self._read(EXPOSURES, "exposure", self.exposures_id)
            events, self.events_id = self._read(EVENTS, "event", self.events_id)
            if not exposures and not events:
                return total
            feedback.update(exposures, events)
            total += len(exposures) + len(events)

    def _read(self, stream: str, name: str, after: str) -> tuple[list[dict[str, Any]], str]:
        found: Any = self._redis.xrange(stream, min=f"({after}", count=BATCH)
        if not found:
            return [], after
        records = [orjson.loads(fields.get(name.encode()) or fields[name]) for _, fields in found]
        last = found[-1][0]
        return records, last.decode() if isinstance(last, bytes) else last
