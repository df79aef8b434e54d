"""Other lists for questions that were answered, made after the answers have gone out.

An answer waits for none of it: one list at a time is made in a thread, which rests after each, and what comes
in meanwhile beyond a few is let go and counted (`endcap_beside_total`).
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor
from serving import prometheus
from serving.pipeline import Bundle, Served
from serving.stages.steering import Steering
from serving.types import Answer, Request

WAITING = 32
PAUSE_S = 0.05
REST = 3.0  # times as long as the list took: at most a quarter of a worker's time, whatever is offered


class Asked(NamedTuple):
    """An answer with all that it was made of."""

    request: Request
    answer: Answer
    bundle: Bundle
    visitor: Visitor
    matrix: ItemMatrix
    steering: Steering
    served: Served

    def told(self) -> dict[str, Any]:
        """What every pair says of the answer; no id of a shopper."""
        of = self.answer
        told = {"request_id": of.request_id, "ts": self.visitor.now, "arm": of.arm, "bundle": of.bundle}
        return told | {"surface": of.surface}


class Actor(Protocol):
    """Somebody with another list."""

    stream: str  # where its pairs are logged

    @property
    def share(self) -> float:
        """Of the answers; 0 while it has nothing to try out."""

    def pair(self, asked: Asked) -> dict[str, Any] | None:
        """What was shown and what it would have shown; None where it has nothing to try out any more."""


class Backstage:
    """Takes its share of the answers for each of the `actors`; `keep` logs a pair in its stream."""

    def __init__(self, actors: Sequence[Actor], keep: Callable[[dict[str, Any], str], None]) -> None:
        self._actors, self._keep = actors, keep
        self._waiting = deque[tuple[Actor, Asked]]()
        self._draw = random.Random().random  # no answer depends on it

    def offer(self, asked: Asked) -> None:
        """Take note, or not; never blocks and never raises."""
        for actor in self._actors:
            if self._draw() < actor.share:
                if len(self._waiting) < WAITING:
                    self._waiting.append((actor, asked))
                else:
                    prometheus.BESIDE.labels(actor.stream, "let go").inc()

    async def run(self, beat: Callable[[], None], missed: Callable[[Exception], None]) -> None:
        """Make the lists until cancelled."""
        while True:
            beat()
            if not self._waiting:
                await asyncio.sleep(PAUSE_S)
                continue
            actor, asked = self._waiting.popleft()
            began = time.monotonic()
            try:
                if pair := await asyncio.to_thread(actor.pair, asked):
                    self._keep(pair, actor.stream)
                    prometheus.BESIDE.labels(actor.stream, "made").inc()
            except Exception as error:  # a draft that fails must not end the task
                prometheus.BESIDE.labels(actor.stream, "failed").inc()
                missed(error)
            await asyncio.sleep(REST * (time.monotonic() - began))
