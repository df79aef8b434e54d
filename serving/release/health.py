"""What each arm did in the last second, for the rollout guard's hard switches."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from redis import Redis

from serving.release import state


@dataclass
class Tally:
    """Counts since the last publication; `seconds` of each answer."""

    errors: int = 0
    empty: int = 0
    seconds: list[float] = field(default_factory=list)


class ArmHealth:
    """Counts per arm in this worker, added to Redis when `publish` is called."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._tallies: dict[str, Tally] = {}

    def note(self, arm: str, seconds: float, *, error: bool, empty: bool) -> None:
        """One answer; `error`: a fallback had to make it; `empty`: it has fewer slots than asked for."""
        tally = self._tallies.setdefault(arm, Tally())
        tally.seconds.append(seconds)
        tally.errors += error
        tally.empty += empty

    async def publish(self) -> None:
        """Hand the counts over and start again; raises redis' errors, and then those counts are lost."""
        tallies, self._tallies = self._tallies, {}
        for arm, tally in tallies.items():
            await asyncio.to_thread(
                state.publish_health,
                self._redis,
                arm,
                requests=len(tally.seconds),
                errors=tally.errors,
                empty=tally.empty,
                p99_ms=round(1000 * quantile(tally.seconds, 0.99), 3),
            )


def quantile(values: list[float], q: float) -> float:
    """The smallest value that at least a share `q` of `values` does not exceed.

    >>> quantile([3.0, 1.0, 2.0], 0.5)
    2.0
    """
    return sorted(values)[max(math.ceil(q * len(values)), 1) - 1]
