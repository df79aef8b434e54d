"""Answers that were given, where they are on record.

    endcap:exposures             every answer, the newest `serving.exposures_kept`
    data/feedback/slots.parquet  those of that log when `endcap feedback` wrote it; nothing shortens it
    data/logs/served             the sampled ones, with their candidates, if `endcap served` runs

An id tells nothing of its time, so the live log is read through, from its newest end.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow.compute as pc
import pyarrow.dataset as ds
from redis import Redis

from feature_repo.clock import instant
from feature_repo.params import load
from feature_repo.places import FEEDBACK, SERVED_LOG, at, existing
from feature_repo.terminal import progress
from serving.params import Serving
from serving.release.state import EXPOSURES

SLOTS = FEEDBACK / "slots.parquet"
BATCH = 2_000
SAMPLES = 3
WHO = ("arm", "bundle", "surface", "user_id", "session_id")
Record = dict[str, Any]  # as serving/live/exposures.py writes it; of files, what they hold of it


@dataclass
class Given:
    """What a release gave to an arm on a surface: answers, the first and last (us UTC), the newest ids."""

    bundle: str
    arm: str
    surface: str
    answers: int = 0
    first_us: int = 0
    last_us: int = 0
    request_ids: list[str] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """One more; the newest come first."""
        ts = record["ts"]
        self.answers += 1
        self.first_us = min(self.first_us or ts, ts)
        self.last_us = max(self.last_us, ts)
        if len(self.request_ids) < SAMPLES:
            self.request_ids.append(record["request_id"])


def find(redis: Redis, request_id: str) -> tuple[Record, str] | None:
    """The answer with this id, and where it is on record; None if nowhere."""
    for record in _live(redis, request_id.encode()):
        if record["request_id"] == request_id:
            return record, EXPOSURES
    for place, instant_column in ((SLOTS, "exposed_ts"), (SERVED_LOG, "served_ts")):
        if not (dataset := _file(place)):
            continue
        rows = dataset.to_table(filter=pc.field("request_id") == request_id).to_pylist()
        if rows:
            record = {name: rows[0][name] for name in ("request_id", *WHO)}
            items = [row["item_id"] for row in rows] if place == SLOTS else []
            return record | {"ts": _us(rows[0][instant_column]), "items": items}, str(place)
    return None


def given(redis: Redis, digest: str) -> dict[str, list[Given]]:
    """Where -> what the releases whose digest begins so gave, by arm and surface, most first."""
    mark = f'"bundle":"{digest}'.encode()
    told = {EXPOSURES: _summed(r for r in _live(redis, mark) if r["bundle"].startswith(digest))}
    if dataset := _file(SLOTS):
        shown = pc.starts_with(pc.field("bundle"), digest) & (pc.field("slot") == 0)
        columns = ["request_id", "exposed_ts", "arm", "bundle", "surface"]
        batches = dataset.to_batches(columns=columns, filter=shown)
        rows = (row | {"ts": _us(row["exposed_ts"])} for batch in batches for row in batch.to_pylist())
        told[str(SLOTS)] = _summed(rows)
    return {where: found for where, found in told.items() if found}


def kept(redis: Redis) -> str:
    """What is on record where, and for how long, in one sentence."""
    oldest: Any = redis.xrange(EXPOSURES, count=1)
    since = f" since {_date(int(oldest[0][0].partition(b'-')[0]) * 1000)}" if oldest else ""
    most = load("serving", Serving).exposures_kept
    live = f"{EXPOSURES} keeps the newest {most:,} answers, now {redis.xlen(EXPOSURES):,}{since}"
    file = at(SLOTS)
    slots = f"of {_date(int(file.stat().st_mtime * 1e6))}" if file.exists() else "is not there"
    served = sum(1 for _ in at(SERVED_LOG).glob("*.parquet"))
    return f"{live}; {SLOTS} {slots}; {SERVED_LOG} has {served:,} files of sampled ones"


def _live(redis: Any, mark: bytes) -> Iterator[Record]:
    """Records of the live log that hold `mark`, newest first."""
    end = "+"
    with progress(total=redis.xlen(EXPOSURES), desc=EXPOSURES, leave=False) as bar:
        while entries := redis.xrevrange(EXPOSURES, max=end, count=BATCH):
            yield from (orjson.loads(raw) for _, fields in entries if mark in (raw := fields[b"exposure"]))
            end = f"({entries[-1][0].decode()}"
            bar.update(len(entries))


def _file(place: Any) -> Any:
    """The parquet dataset at `place`, None without one. Raises DataError for a file that is none."""
    path = at(place)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    job = "feedback" if place == SLOTS else "served"
    found = [str(existing(file, job, "request_id", "bundle")) for file in files if file.exists()]
    return ds.dataset(found, format="parquet") if found else None


def _summed(records: Iterable[Record]) -> list[Given]:
    told: dict[tuple[str, str, str], Given] = {}
    for record in records:
        key = record["bundle"], record["arm"], record["surface"]
        told.setdefault(key, Given(*key)).add(record)
    return sorted(told.values(), key=lambda one: -one.answers)


def _us(moment: Any) -> int:
    return round(moment.timestamp() * 1e6)


def _date(us: int) -> str:
    return f"{instant(us):%Y-%m-%d %H:%M} UTC"
