"""Room for Redis' append-only file: without it an accepted event could be lost, so the door shuts before.

Redis answers a write before the disk has it, and with `appendfsync no` also where the disk then refuses it:
only the next write is told (MISCONF). What one round of its loop accepted is in memory alone until it can be
written. So the door shuts while there is still room, and as soon as Redis says that a write failed.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from feature_repo.errors import UnavailableError
from feature_repo.params import shop
from feature_repo.ports import embedded_redis_url, redis_url
from serving import prometheus

MIB = 1 << 20
RETRY_AFTER_S = 10


def redis_folder() -> Path | None:
    """Where the embedded Redis writes; None where another server is used, whose disk is not ours to see."""
    return shop().run_dir() / "redis" if redis_url() == embedded_redis_url() else None


class Disk:
    """`refusal` is what the door says now, None while events can be kept. `free` gives the bytes left."""

    def __init__(
        self,
        redis: Redis,
        folder: Path | None,
        min_free_mib: int,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._redis: Any = redis
        self._folder, self._min_free_mib, self._free = folder, min_free_mib, free
        self.refusal: UnavailableError | None = None

    async def look(self) -> None:
        """Bring `refusal` up to date. Raises redis' errors and OSError; then it stays as it is."""
        told = await self._redis.info("persistence")
        self.refusal = self._unwritten(told) or await asyncio.to_thread(self._low)

    def _unwritten(self, told: dict[str, Any]) -> UnavailableError | None:
        if told.get("aof_last_write_status", "ok") == "ok":
            return None
        step = "make room on its disk, or repair it; Redis then goes on by itself"
        return UnavailableError("Redis cannot write its append-only file", RETRY_AFTER_S, step)

    def _low(self) -> UnavailableError | None:
        if self._folder is None or not self._folder.exists():
            return None
        free = self._free(self._folder)
        prometheus.DISK_FREE.set(free)
        if free >= self._min_free_mib * MIB:
            return None
        step = f"make room on the disk that holds {self._folder}; the event door opens again by itself"
        left = f"{free // MIB} MiB are left for Redis, less than serving.min_free_mib = {self._min_free_mib}"
        return UnavailableError(left, RETRY_AFTER_S, step)
