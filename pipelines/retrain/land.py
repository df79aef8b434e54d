"""`endcap land`: the events of the running shop, written down before the log forgets them.

    data/logs/events/<first>-<last>.parquet   canonical events by arrival (ms), the newest file grows

The log keeps an applied event `stream.keep_hours`; a shop that retrains runs this more often. A file holds
all that arrived after the one before it, up to its own end, a moment back: by then the log has it all.
Who is killed while a file grows leaves the shorter one beside it, and readers take the longer.
"""

from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
from redis import Redis

from feature_repo.clock import HOUR_MS, instant
from feature_repo.eventlog.keys import StreamParams
from feature_repo.eventlog.open import open_tail
from feature_repo.events import SCHEMA, UNCOUNTED
from feature_repo.files import alone, write_parquet
from feature_repo.offline.event_log import files, span
from feature_repo.online.connection import connect
from feature_repo.params import load, shop
from feature_repo.persons import tombstones
from feature_repo.persons.privacy import persons
from feature_repo.places import EVENT_LOG, at

LOCK = "land.lock"  # of run/<shop>
GROWS = 500_000  # rows up to which a file takes in more
BATCH = 5_000
SETTLED_MS = 1_000  # what arrived so long ago stands in the log
MS_US = 1_000


class Landed(NamedTuple):
    """What one run wrote down; `gap`: from when to when the log had forgotten before it came, if so."""

    rows: int
    until: datetime
    gap: tuple[datetime, datetime] | None


def main() -> int:
    """Write the events that came since the last run to data/logs/events; 1 where the log had lost some."""
    with connect() as redis:
        landed = land(redis, at(EVENT_LOG), load("stream", StreamParams))
    print(f"{EVENT_LOG}: {landed.rows:,} more events, up to {landed.until:%Y-%m-%d %H:%M:%S} UTC")
    if landed.gap:
        lost = " to ".join(f"{end:%Y-%m-%d %H:%M}" for end in landed.gap)
        print(f"what came from {lost} may be lost: the log keeps `stream.keep_hours`; land more often")
    return int(landed.gap is not None)


def land(redis: Redis, folder: Path, params: StreamParams) -> Landed:
    """Append to `folder` what arrived after its end. Raises redis' errors; then it is as it was.

    What the door stamped as no evidence (forged, repeated, faster than people) is left out: a model would
    learn from it what no count believes. So is what is of somebody erased: a log of Kafka keeps it.
    """
    with alone(shop().run_dir() / LOCK):
        return _land(redis, folder, params)


def _land(redis: Redis, folder: Path, params: StreamParams) -> Landed:
    seconds, micros = cast("tuple[int, int]", redis.time())
    end = seconds * 1_000 + micros // MS_US - SETTLED_MS
    held = files(folder)
    since = span(held[-1])[1] if held else 0
    tail = open_tail(redis, params, f"{since}-{(1 << 64) - 1}", BATCH)
    rows: list[dict[str, Any]] = []
    known = persons()
    known.erased = known.erased | tombstones.keep((), redis)  # of an erase on another machine
    while found := tail.next():
        came = [event for ms, event in found if since < ms <= end and not event.get(UNCOUNTED)]
        rows += [event for event in came if not known.left_out(event)]
        if found[-1][0] > end:
            break
    forgot = end - params.keep_hours * HOUR_MS
    gap = (instant(since * MS_US), instant(forgot * MS_US)) if 0 < since < forgot else None
    if held and not rows:  # nothing came: the newest file holds all up to now
        held[-1].rename(folder / f"{span(held[-1])[0]}-{end}.parquet")
    elif rows:
        _append(folder, held, since, end, pa.Table.from_pylist([_canonical(row) for row in rows], SCHEMA))
    return Landed(len(rows), instant(end * MS_US), gap)


def _append(folder: Path, held: list[Path], since: int, end: int, more: pa.Table) -> None:
    grown = held[-1:] if held and pq.read_metadata(held[-1]).num_rows < GROWS else []
    first = span(grown[0])[0] if grown else since
    tables = [pq.read_table(file, schema=SCHEMA) for file in grown]
    folder.mkdir(parents=True, exist_ok=True)
    write_parquet(folder / f"{first}-{end}.parquet", SCHEMA, [*tables, more])
    for file in grown:
        file.unlink()


def _canonical(event: dict[str, Any]) -> dict[str, Any]:
    """As in data/raw; the log has instants in us.

    >>> _canonical({"event_ts": 5, "created_ts": None, "type": "search"})["event_ts"].microsecond
    5
    """
    known = {name: event.get(name) for name in SCHEMA.names}
    times = {"event_ts": event["event_ts"], "created_ts": event.get("created_ts") or event["event_ts"]}
    return known | {name: instant(us) for name, us in times.items()}
