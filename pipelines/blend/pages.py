"""Lists that the shop logged, whatever made them: what was shown at which position, and what was clicked.

A click belongs to the newest list of its visit that held the item, at most CREDIT_US before.
"""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.clock import MINUTE_US
from feature_repo.places import EVENTS, IMPRESSIONS, existing
from pipelines.protocol.queries import Query
from serving.types import Context

CREDIT_US = 30 * MINUTE_US
LIST = ["event_ts", "session_id", "surface"]
WHO = ["user_id", "device", "country", "channel"]


class Page(NamedTuple):
    """One list, and the query that it answered. position float64 (n,), from 1 · clicked bool (n,)"""

    query: Query
    items: tuple[str, ...]
    position: npt.NDArray[np.float64]
    clicked: npt.NDArray[np.bool_]


def logged_pages(start: datetime, end: datetime | None, limit: int, rng: np.random.Generator) -> list[Page]:
    """At most `limit` lists of [start, end), drawn by `rng`, in time order; none where none was logged."""
    shown = _read(IMPRESSIONS, [*LIST, *WHO, "item_id", "position", "slot"], start, end)
    if shown.empty:
        return []
    shown["surface"] = shown["surface"].astype(object).fillna("")
    shown["position"] = shown["position"].fillna(shown["slot"] + 1).fillna(1).clip(lower=1).astype(float)
    shown = shown.sort_values([*LIST, "position", "item_id"], ignore_index=True)
    clicks = _read(EVENTS, ["event_ts", "session_id", "item_id", "type"], start, end)
    shown["clicked"] = _clicked(shown, clicks[clicks["type"] == "click"])
    number = shown.groupby(LIST, sort=False).ngroup().to_numpy()
    drawn = np.isin(number, rng.permutation(number[-1] + 1)[:limit])
    lists = shown[drawn].groupby(number[drawn], sort=False)
    return [_page(i, held) for i, (_, held) in enumerate(lists)]


def _read(place: Path, columns: list[str], start: datetime, end: datetime | None) -> pd.DataFrame:
    inside = pc.field("event_ts") >= start
    if end is not None:
        inside &= pc.field("event_ts") < end
    frame = pq.read_table(existing(place, "ingest", *columns), columns=columns, filters=inside).to_pandas()
    frame["event_ts"] = frame["event_ts"].astype("datetime64[us, UTC]").astype("int64")
    return frame


def _clicked(shown: pd.DataFrame, clicks: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which rows of `shown`, which is in order of time, a click belongs to."""
    key = ["session_id", "item_id"]
    lists = shown[[*key, "event_ts"]].assign(row=shown.index)
    newest = pd.merge_asof(
        clicks.sort_values("event_ts", kind="stable"), lists, on="event_ts", by=key, tolerance=CREDIT_US
    )
    return np.isin(shown.index, newest["row"].dropna())


def _page(number: int, held: pd.DataFrame) -> Page:
    first = held.iloc[0]
    user, device, country, channel = (None if pd.isna(first[name]) else str(first[name]) for name in WHO)
    query = Query(
        number,
        int(first["event_ts"]),
        user,
        str(first["session_id"]),
        (),
        frozenset(),
        Context(device=device, country=country, channel=channel),
        str(first["surface"]),
    )
    return Page(query, tuple(held["item_id"]), held["position"].to_numpy(), held["clicked"].to_numpy())
