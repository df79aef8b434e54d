"""What each arm did in the last second, for the rollout guard's hard switches."""

import asyncio
from collections import defaultdict
from functools import partial

import numpy as np
from redis import Redis

from serving.release import state


class ArmHealth:
    """Counts per arm in this worker, added to Redis when `publish` is called."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._answers = defaultdict[str, list[tuple[float, bool, bool]]](
            list
        )  # by arm: seconds, error, empty

    def note(self, arm: str, seconds: float, *, error: bool, empty: bool) -> None:
        """One answer; `error`: a fallback had to make it; `empty`: eligible items were left out."""
        self._answers[arm].append((seconds, error, empty))

    async def publish(self) -> None:
        """Hand the counts over and start again; raises redis' errors, and then those counts are lost."""
        last_second, self._answers = self._answers, defaultdict(list)
        for arm, answers in last_second.items():
            took_s, errors, empty = zip(*answers, strict=True)
            p99_s = float(np.quantile(took_s, 0.99, method="inverted_cdf"))
            tell = partial(state.publish_health, requests=len(answers), errors=sum(errors), empty=sum(empty))
            await asyncio.to_thread(tell, self._redis, arm, p99_ms=round(1000 * p99_s, 3))
