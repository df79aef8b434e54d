"""Where consumers begin: after a fresh backfill, or where a person wants the log to be applied again.

Rows made by `endcap materialize --fresh --as-of T` hold every event stamped before T that the shop had
learned of when its data was exported. The log has some of them too: up to its end at that moment these are
skipped, and all others are applied. An entry that is read again after it was applied is known by its mark,
and changes nothing; what is so old that its mark may be gone is not read again.
"""

import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from feature_repo.clock import HOUR_MS, micros
from feature_repo.errors import EndcapError, ParamsError
from feature_repo.eventlog.contract import Entry, EventLog
from feature_repo.eventlog.keys import APPLIED, GROUPS, HORIZON, applied_field, order
from pipelines.stream.members import tasks

HELD_MS = 20_000  # a lease outlives one who was killed by this


class Horizon(NamedTuple):
    """Rows hold what was stamped before `ts` and learned by `learned` (us), of the entries up to `ends`."""

    ts: int
    learned: int
    ends: Mapping[int, str]  # partition -> position

    def covers(self, entry: Entry, ts: int, created: int) -> bool:
        """True if the rows hold the event of `entry`, stamped `ts` and learned at `created`, already."""
        end = self.ends.get(entry.partition)
        inside = ts < self.ts and created <= self.learned
        return inside and end is not None and order(entry.position) <= order(end)


def set_horizon(redis: Any, horizon: Horizon) -> None:
    """Rows were made afresh."""
    ends: dict[str, int | str] = {str(p): position for p, position in horizon.ends.items()}
    with redis.pipeline(transaction=True) as pipe:
        pipe.delete(HORIZON)
        pipe.hset(HORIZON, mapping={"ts": horizon.ts, "learned": horizon.learned, **ends})
        pipe.execute()


def read_horizon(redis: Any) -> Horizon:
    """The horizon of the rows; one that covers nothing when they were never made afresh."""
    found = {name.decode(): value.decode() for name, value in redis.hgetall(HORIZON).items()}
    ts, learned = int(found.pop("ts", 0)), int(found.pop("learned", 0))
    return Horizon(ts, learned, {int(p): position for p, position in found.items()})


def rewind(redis: Any, log: EventLog, start: str, keep_hours: int) -> None:
    """Let both groups begin at `start`: "beginning", an ISO instant of arrival, or "<partition>:<position>".

    A position stands before the first entry to be applied. What a group applied and what arrived more than
    `keep_hours` ago is not read again. Raises EndcapError while consumers are at work.
    """
    with consumers_kept_out(redis, len(log.ends())):
        oldest = log.before(redis.time()[0] * 1000 - keep_hours * HOUR_MS)
        for p, asked in _positions(log, start).items():
            for group in GROUPS:
                field = applied_field(group, p)
                applied = redis.hget(APPLIED, field)
                floor = min(oldest[p], applied and applied.decode(), key=order)
                position = max(asked, floor, key=order)
                if position is None:
                    redis.hdel(APPLIED, field)
                else:
                    redis.hset(APPLIED, field, position)


def consumers_at_work(redis: Any, partitions: int) -> list[str]:
    """Leases of the tasks that somebody works on."""
    return [task.lease for task in tasks(partitions) if redis.exists(task.lease)]


@contextmanager
def consumers_kept_out(redis: Any, partitions: int) -> Iterator[None]:
    """Hold the lease of every task meanwhile. Raises EndcapError while a consumer holds one.

    What a consumer has in memory would be written over rows that others change, and the other way round.
    """
    name, leases = f"kept-out-{uuid.uuid4().hex}", [task.lease for task in tasks(partitions)]
    held = [lease for lease in leases if not redis.set(lease, name, nx=True, px=HELD_MS)]
    done = threading.Event()

    def hold() -> None:
        while not done.wait(HELD_MS / 4000):
            for lease in leases:
                redis.pexpire(lease, HELD_MS)

    holder = threading.Thread(target=hold, daemon=True)
    try:
        if held:
            raise EndcapError(
                f"stream: {', '.join(held)} is held by a consumer at work. Next: `endcap down stream`, "
                "then try again"
            )
        holder.start()
        yield
    finally:
        done.set()
        if holder.ident:
            holder.join()
        for lease in set(leases) - set(held):
            redis.delete(lease)


def _positions(log: EventLog, start: str) -> Mapping[int, str | None]:
    partitions = log.ends().keys()
    if start == "beginning":
        return dict.fromkeys(partitions)
    found = re.fullmatch(rf"(\d+):({log.position})", start)
    if found and int(found[1]) in partitions:
        return {int(found[1]): found[2]}
    try:
        return log.before(micros(start) // 1000)
    except (ValueError, OverflowError):
        raise ParamsError(
            f"--from: {start!r} is not allowed; allowed: beginning, an instant of arrival as "
            f"2026-03-01T00:00:00Z, or <partition>:<position> with a partition from 0 to "
            f"{len(partitions) - 1} and a position of the form {log.position}"
        ) from None
