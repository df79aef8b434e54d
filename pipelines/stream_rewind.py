"""Where consumers begin: after a fresh backfill, or where a person wants the log to be applied again.

Rows made by `endcap materialize --fresh --as-of T` hold every event stamped before T. The log has some of
them too: up to its end at that moment they are skipped, and what is stamped T or later is applied. An entry
that is read again after it was applied is known by its mark, and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from feature_repo.errors import EndcapError, ParamsError
from feature_repo.eventlog import APPLIED, GROUPS, HORIZON, LEASE, applied_field, order
from pipelines.eventlog import Entry, EventLog

POSITION = re.compile(r"(\d+):(\d+(?:-\d+)?)")


class Horizon(NamedTuple):
    """Rows hold what was stamped before `ts` (us), of the entries up to `ends`, partition -> position."""

    ts: int
    ends: Mapping[int, str]

    def covers(self, entry: Entry, ts: int) -> bool:
        """True if the rows hold the event of `entry`, stamped `ts`, already."""
        end = self.ends.get(entry.partition)
        return ts < self.ts and end is not None and order(entry.position) <= order(end)


def set_horizon(redis: Any, ts: int, ends: Mapping[int, str | None]) -> None:
    """Rows were made afresh, of all events stamped before `ts`, while the log ended at `ends`."""
    fields: dict[str, int | str] = {str(p): position for p, position in ends.items() if position}
    with redis.pipeline(transaction=True) as pipe:
        pipe.delete(HORIZON)
        pipe.hset(HORIZON, mapping={"ts": ts, **fields})
        pipe.execute()


def read_horizon(redis: Any) -> Horizon:
    """The horizon of the rows; one that covers nothing when they were never made afresh."""
    found = {name.decode(): value.decode() for name, value in redis.hgetall(HORIZON).items()}
    ts = int(found.pop("ts", 0))
    return Horizon(ts, {int(p): position for p, position in found.items()})


def rewind(redis: Any, log: EventLog, start: str) -> None:
    """Let both groups begin at `start`: "beginning", an ISO instant of arrival, or "<partition>:<position>".

    A position stands before the first entry to be applied. Raises EndcapError while consumers are at work.
    """
    forbid_while_running(redis)
    for p, position in _positions(log, start).items():
        for group in GROUPS:
            field = applied_field(group, p)
            if position is None:
                redis.hdel(APPLIED, field)
            else:
                redis.hset(APPLIED, field, position)


def forbid_while_running(redis: Any) -> None:
    """Raises EndcapError while a consumer holds a lease: what it has in memory would be written."""
    if held := sorted(key.decode() for key in redis.scan_iter(f"{LEASE}*")):
        raise EndcapError(
            f"stream: {', '.join(held)} is held by a consumer at work. Next: `endcap down stream`, "
            "then try again"
        )


def _positions(log: EventLog, start: str) -> Mapping[int, str | None]:
    if start == "beginning":
        return dict.fromkeys(log.ends())
    if found := POSITION.fullmatch(start):
        return {int(found[1]): found[2]}
    try:
        instant = datetime.fromisoformat(start)
    except ValueError:
        raise ParamsError(
            f"--from: {start!r} is not allowed; allowed: beginning, an instant of arrival as "
            "2026-03-01T00:00:00Z, or <partition>:<position>"
        ) from None
    instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return log.before(int(instant.timestamp() * 1000))
