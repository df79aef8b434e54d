"""What each arm did in the last second, for the rollout guard's hard switches."""

import asyncio
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from redis import Redis

from serving.release import state


@dataclass
class ArmSecond:
    """One arm since the last publication, which is a second ago; `took_s` per answer."""

    errors: int = 0
    empty: int = 0
    took_s: list[float] = field(default_factory=list)


class ArmHealth:
    """Counts per arm in this worker, added to Redis when `publish` is called."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._arms: dict[str, ArmSecond] = {}

    def note(self, arm: str, seconds: float, *, error: bool, empty: bool) -> None:
        """One answer; `error`: a fallback had to make it; `empty`: it has fewer slots than asked for."""
        one = self._arms.setdefault(arm, ArmSecond())
        one.took_s.append(seconds)
        one.errors += error
        one.empty += empty

    async def publish(self) -> None:
        """Hand the counts over and start again; raises redis' errors, and then those counts are lost."""
        arms, self._arms = self._arms, {}
        for arm, one in arms.items():
            p99_s = float(np.quantile(one.took_s, 0.99, method="inverted_cdf"))
            tell = partial(state.publish_health, requests=len(one.took_s), errors=one.errors, empty=one.empty)
            await asyncio.to_thread(tell, self._redis, arm, p99_ms=round(1000 * p99_s, 3))
