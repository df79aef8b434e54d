"""Whether the told chances of a click came true on logged answers: what was expected, what was clicked.

Clicks are credited as everywhere (monitoring/experiment/attribution.py). The newest answers may still be
clicked, so that what is told of the last minutes is a little too low.
"""

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from redis import Redis

from feature_repo.params import load
from monitoring.experiment.attribution import Feedback, FeedbackParams
from monitoring.experiment.tail import Tail
from monitoring.fitting.relisted import Answer
from serving.stages.odds import Chances

KEPT = 20_000  # lists, some 2 kB each
BANDS = 4  # of slots, by what was expected of them
BEFORE_MS = 60_000  # an answer's exposure may be written a little before its candidates
PRIOR = 10.0  # clicks that a surface is given as they were expected
LEAST = 20  # answers, below which no interval is told


class Fates:
    """What was clicked of the newest KEPT lists; each look reads on. The first reads all that is logged."""

    def __init__(self, redis: Redis, since: str = "0-0") -> None:
        self._feedback = Feedback(load("feedback", FeedbackParams), journal=True)
        self._tail, self._turn = Tail(redis, since), threading.Lock()

    def look(self) -> dict[str, frozenset[str]]:
        """request_id -> clicked items."""
        with self._turn:
            self._tail.feed(self._feedback, each=lambda: self._feedback.keep(KEPT))
            return {one.request_id: frozenset(one.outcomes) for one in self._feedback.exposures()}


def clicked(redis: Redis, entries: Sequence[Any]) -> dict[str, frozenset[str]]:
    """request_id -> clicked items, of the lists shown since the first of these entries of `endcap:served`."""
    if not entries:
        return {}
    since = max(int(entries[0][0].partition(b"-")[0]) - BEFORE_MS, 0)
    return Fates(redis, f"{since}-0").look()


def reliability(
    answers: Iterable[Answer], clicks: dict[str, frozenset[str]], chances: Chances
) -> dict[str, Any] | None:
    """`expected` and `clicked` CTR per slot, with the 95 % interval of the latter over answers, and the same
    by bands of slots, the least likely first. None where too few answers have a known fate.

    `factor`: by surface, times what the chances come true; towards 1 where clicks are few.
    """
    known = [answer for answer in answers if answer.shown and answer.request_id in clicks]
    if len(known) < LEAST:
        return None
    chance = [one.chances(chances, one.shown) for one in known]
    hit = [np.isin(one.shown, list(clicks[one.request_id])) for one in known]
    sums = np.array([(len(h), h.sum(), c.sum()) for c, h in zip(chance, hit, strict=True)], np.float64)
    slots, hits, expected = sums.sum(0)
    rate = hits / slots
    spread = 1.96 * float((sums[:, 1] - rate * sums[:, 0]).std(ddof=1)) * len(known) ** 0.5 / slots
    told, came = np.concatenate(chance), np.concatenate(hit)
    bands = np.array_split(np.argsort(told, kind="stable"), BANDS)
    surface = np.array([one.request.surface for one in known])
    of = {name: sums[surface == name].sum(0) for name in np.unique(surface).tolist()}
    return {
        "answers": len(known),
        "expected": float(expected / slots),
        "clicked": [float(rate), max(float(rate - spread), 0.0), float(rate + spread)],
        "bands": [[float(told[band].mean()), float(came[band].mean()), len(band)] for band in bands],
        "factor": {name: float((one[1] + PRIOR) / (one[2] + PRIOR)) for name, one in of.items()},
    }
