"""Who was shown what: impressions by product and day, from the log of answers and, before it, the export.

An impression is a place in a list that was served (`endcap:exposures`). What the export logged counts up to
the first answer of that log.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from feature_repo.clock import DAY_US
from feature_repo.offline.duck import connect
from feature_repo.places import IMPRESSIONS, at, existing
from pipelines.protocol.metrics import gini
from serving.release.state import EXPOSURES

BATCH = 5_000  # answers per read
BEFORE = 7  # days, whose impressions say what the long tail is
_OF_EXPORT = """
select item_id, epoch_us(event_ts) // $day as day, count(*) as shown, max(epoch_us(event_ts)) as last
from read_parquet($file) where item_id is not null and epoch_us(event_ts) between $since and $until
group by 1, 2 order by 1, 2
"""
Doubles = npt.NDArray[np.float64]


@dataclass
class Sightings:
    """`last`: item -> us of its newest impression; `days`: day since 1970 -> item -> impressions.

    `own`: as `last`, of slots that did not explore. `lists`: surface -> answers of the last 24 hours.
    """

    last: dict[str, int] = field(default_factory=dict)
    own: dict[str, int] = field(default_factory=dict)
    days: dict[int, Counter[str]] = field(default_factory=dict)
    lists: Counter[str] = field(default_factory=Counter)

    def note(self, item: str, ts: int, day: int, shown: int = 1, explored: bool = False) -> None:
        self.days.setdefault(day, Counter())[item] += shown
        for last in (self.last,) if explored else (self.last, self.own):
            last[item] = max(ts, last.get(item, 0))


def newest_list(redis: Any) -> int:
    """When the newest answer was given, else the export's newest impression, us; 0 for neither."""
    for _, fields in redis.xrevrange(EXPOSURES, count=1):
        return int(orjson.loads(fields[b"exposure"])["ts"])
    if not at(IMPRESSIONS).exists():
        return 0
    asked = {"file": str(existing(IMPRESSIONS, "ingest", "event_ts"))}
    with connect(threads=1) as db:
        ((newest,),) = db.sql(
            "select max(epoch_us(event_ts)) from read_parquet($file)", params=asked
        ).fetchall()
    return int(newest or 0)


def read(redis: Any, now: int, days: int) -> Sightings:
    """Those of the last `days` before `now` (us)."""
    since, seen, first, place = now - days * DAY_US, Sightings(), now, "-"
    while entries := redis.xrange(EXPOSURES, min=place, count=BATCH):
        for _, fields in entries:
            shown = orjson.loads(fields[b"exposure"])
            if since <= (ts := int(shown["ts"])) <= now:
                first = min(first, ts)
                seen.lists[shown["surface"]] += ts > now - DAY_US
                explored = len(shown["items"]) - 1 if shown.get("explored") else None
                for slot, item in enumerate(shown["items"]):
                    seen.note(item, ts, ts // DAY_US, explored=slot == explored)
        place = f"({entries[-1][0].decode()}"
    if at(IMPRESSIONS).exists():
        file = existing(IMPRESSIONS, "ingest", "event_ts", "item_id")
        asked = {"file": str(file), "day": DAY_US, "since": since, "until": first - 1}
        with connect(threads=1) as db:
            for item, day, many, last in db.sql(_OF_EXPORT, params=asked).fetchall():
                seen.note(item, last, int(day), many)
    return seen


def by_day(seen: Sightings, items: list[str], tail: float) -> list[dict[str, Any]]:
    """Per day: impressions, Gini and coverage over `items`, and the long tail's share of the impressions.

    The long tail are the share `tail` of the items that were shown least in the BEFORE days before; of the
    first day it is not known.
    """
    counts = {day: np.array([shown[item] for item in items], np.float64) for day, shown in seen.days.items()}
    return [_of_day(day, counts, tail) for day in sorted(counts) if counts[day].sum() >= 1]


def _of_day(day: int, counts: dict[int, Doubles], tail: float) -> dict[str, Any]:
    shown = counts[day]
    before = [counts[day - back] for back in range(1, BEFORE + 1) if day - back in counts]
    told: dict[str, Any] = {"day": day, "impressions": int(shown.sum()), "gini": gini(shown.astype(np.int64))}
    told |= {"coverage": float((shown > 0).mean()), "tail_share": None}
    if before and sum(map(np.sum, before)):
        rare = np.argsort(np.sum(before, 0), kind="stable")[: round(tail * len(shown))]
        told["tail_share"] = float(shown[rare].sum() / shown.sum())
    return told
