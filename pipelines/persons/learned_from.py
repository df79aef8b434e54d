"""Which models and releases were fitted with a person's data, and when they will be gone: numbers remain in
them, no id.
"""

from datetime import datetime
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from redis import Redis

from feature_repo.params import load
from feature_repo.places import BUNDLES, CANDIDATE, EVENTS, IMPRESSIONS, MODELS, at
from pipelines.persons.sweep import Erased
from pipelines.release.assurance import ReleaseParams
from serving.release import state
from serving.release.state import Release

AGAIN = "the next `dvc repro`, which fits them without"


def first_event(erased: Erased) -> datetime | None:
    """The instant of the person's first event in data/raw; None where there is none."""
    found = []
    for place in (EVENTS, IMPRESSIONS):
        if at(place).exists():
            table = pq.read_table(at(place), columns=["event_ts", "user_id", "session_id"])
            found.append(pc.min(table["event_ts"].filter(erased.owned(table))).as_py())
    return min((one for one in found if one), default=None)


def releases(since: datetime | None, redis: Redis) -> list[dict[str, Any]]:
    """Fits and installed releases with data from `since` on: what serves, when it ends."""
    if since is None:
        return []
    found: list[dict[str, Any]] = []
    if at(MODELS).exists():
        found.append({"release": str(MODELS), "serves": None, "gone": AGAIN})
    now, serving = state.read(redis), dict[str, str]()
    for role in ("champion", "challenger"):
        if now and (one := getattr(now, role)):
            serving[one.digest] = role
    kept = load("release", ReleaseParams).bundles_kept
    for folder in sorted(path for path in at(BUNDLES).glob("*") if path.is_dir()):
        manifest = Release(folder.name, str(BUNDLES / folder.name)).manifest() or {}
        until = manifest.get("data_span", {}).get("until")
        if until is None or datetime.fromisoformat(until) <= since:
            continue
        name = str(BUNDLES / folder.name)
        gone = f"`endcap promote` of a release fitted anew, once {kept} newer ones are installed"
        ends = AGAIN if folder == at(CANDIDATE) else gone
        found.append({"release": name, "serves": serving.get(folder.name), "gone": ends})
    return found
