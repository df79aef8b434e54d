"""A release that answers nobody: its lists are logged beside those that were shown.

    endcap:shadow:pairs   `pair`, JSON {request_id, ts, arm, bundle, surface, shadow, shown, list, limit,
                          shown_ms, took_ms, short, expected_shown, expected}: the digest in the shadow, item
                          ids best first, milliseconds of the stages without reading, whether slots are empty
                          that eligible items could have filled, and the mean chance of a click per slot, each
                          by its own release's calibration (null: not calibrated). `error` where it failed.

The third release is in memory only while `endcap:shadow` names one (serving/beside/trial.py).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from redis import Redis

from feature_repo.assemble.matrix import ItemMatrix
from serving import pipeline
from serving.beside.backstage import Asked
from serving.beside.trial import read
from serving.pipeline import Bundle, Served
from serving.release.loaded import Loaded
from serving.release.state import Release
from serving.stages.steering import Steering
from serving.types import Request

SHADOWED = "endcap:shadow:pairs"


class Understudy:
    """Follows `endcap:shadow`. `load`: brings a release that answers nobody, None lets go of it.

    `steering`: the shop's rules for a request, by the items of another release, at an instant (us).
    """

    stream = SHADOWED

    def __init__(
        self,
        redis: Redis,
        load: Callable[[Release | None], Awaitable[Loaded | None]],
        steering: Callable[[Request, ItemMatrix, int], Steering],
    ) -> None:
        self._redis, self._load, self._steering = redis, load, steering
        self._held: Loaded | None = None
        self.share = 0.0

    async def poll(self) -> None:
        """Look once, load or forget. Raises redis' errors: what is loaded stays until Redis answers."""
        trial = await asyncio.to_thread(read, self._redis)
        self._held = await self._load(trial.release if trial else None)
        self.share = trial.share if trial and self._held else 0.0

    def pair(self, asked: Asked) -> dict[str, Any] | None:
        """What was shown and what the release would have shown; None where it is what was shown."""
        held = self._held
        if held is None or held.bundle.digest == asked.answer.bundle:
            return None
        bundle, request, shown = held.bundle, asked.request, asked.served
        told = asked.told() | {"shadow": bundle.digest, "limit": request.limit}
        told |= {"shown": [slot.item_id for slot in asked.answer.items], "shown_ms": _ms(shown)}
        told |= {"expected_shown": expected(asked.bundle, request.surface, shown)}
        try:
            served = self._served(asked, held)
        except Exception as error:  # a verdict on the release, not on this task
            return told | {"error": f"{type(error).__name__}: {error}"}
        filled = len(served.slots)
        capped = bool(asked.steering.caps)  # then a short list may be what the rules ask for
        short = filled < request.limit and not capped and filled < np.count_nonzero(served.eligible.mask)
        told |= {
            "list": [slot.item_id for slot in served.slots],
            "took_ms": _ms(served),
            "short": bool(short),
        }
        return told | {"expected": expected(bundle, request.surface, served)}

    def _served(self, asked: Asked, held: Loaded) -> Served:
        """By the same rules; items of another embedding space have a matrix, and rules, of their own."""
        matrix, steering, now = asked.matrix, asked.steering, asked.visitor.now
        if held.bundle.manifest["space"] != asked.bundle.manifest["space"]:
            matrix = held.features.matrix.as_of(now)
            steering = self._steering(asked.request, matrix, now)
        return pipeline.recommend(asked.request, held.bundle, asked.visitor, matrix, steering)


def expected(bundle: Bundle, surface: str, served: Served) -> float | None:
    """Mean chance of a click per slot by the bundle's own calibration; None where it has none for these."""
    chances, craft = bundle.profit.chances, bundle.surfaces.of(surface)
    if not chances.known or not served.slots or (craft is not None and craft.order == "own"):
        return None
    score = np.array([slot.score for slot in served.slots], np.float32)
    return round(float(chances.of(surface, score, np.arange(1, len(score) + 1)).mean()), 6)


def _ms(served: Served) -> float:
    return round(1000 * sum(served.seconds.values()), 3)
