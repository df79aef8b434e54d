"""Rules that are only tried out: their lists are made behind the answers' back, and logged beside what was
shown.

    endcap:rules:shadow   `pair`, JSON {request_id, ts, arm, bundle, surface, version, draft, shown, shadow}:
                          the version that held, the name of the draft, and per slot [item_id, rule or null]

A share of the live answers is taken. An answer waits for none of it: the list is made in a thread after the
answer has gone out, one at a time, and what comes in meanwhile beyond a few is let go.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor
from serving import pipeline
from serving.live.exposures import ExposureLog
from serving.pipeline import Bundle
from serving.rules.rulebook import Rulebook
from serving.types import Answer, Request, Slot

WAITING = 32
PAUSE_S = 0.05


class Asked(NamedTuple):
    """An answer with all that it was made of."""

    request: Request
    answer: Answer
    bundle: Bundle
    visitor: Visitor
    matrix: ItemMatrix
    version: int  # of the rules that held


class Shadow:
    """Takes `share` of the answers it is offered while rules are tried out."""

    def __init__(self, rulebook: Rulebook, log: ExposureLog, share: float) -> None:
        self._rulebook, self._log, self._share = rulebook, log, share
        self._waiting: deque[Asked] = deque(maxlen=WAITING)
        self._draw = random.Random().random  # no answer depends on it

    def offer(self, asked: Asked) -> None:
        """Take note, or not; never blocks and never raises."""
        if self._rulebook.shadow_name and self._draw() < self._share:
            self._waiting.append(asked)

    async def run(self, beat: Callable[[], None], missed: Callable[[Exception], None]) -> None:
        """Make the lists until cancelled."""
        while True:
            while self._waiting:
                asked = self._waiting.popleft()
                try:
                    if pair := await asyncio.to_thread(self.pair, asked):
                        self._log.add_pair(pair)
                except Exception as error:  # a draft that fails must not end the task
                    missed(error)
            beat()
            await asyncio.sleep(PAUSE_S)

    def pair(self, asked: Asked) -> dict[str, Any] | None:
        """What was shown and what the draft would have shown; None where nothing is tried out any more."""
        request, answer, bundle, visitor, matrix, version = asked
        name = self._rulebook.shadow_name
        steering = self._rulebook.tried(request, matrix, visitor.now)
        if steering is None:
            return None
        served = pipeline.recommend(request, bundle, visitor, matrix, steering)
        told = {
            "request_id": answer.request_id,
            "ts": visitor.now,
            "arm": answer.arm,
            "bundle": answer.bundle,
        }
        told |= {"surface": answer.surface, "version": version, "draft": name}
        return told | {"shown": _slots(answer.items), "shadow": _slots(served.slots)}


def _slots(slots: tuple[Slot, ...]) -> list[tuple[str, str | None]]:
    return [(slot.item_id, slot.rule) for slot in slots]
