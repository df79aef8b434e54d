"""Log-and-wait: the ranker's training rows from what serving logged, labelled by what the visit did later.

The values are those that the ranker saw, whatever was stored at the time, so training cannot differ from
serving by construction. What it costs is the wait, and that a new column has no past.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from feature_repo.errors import DataError
from feature_repo.events import TIMESTAMP
from feature_repo.vectorize import COLUMNS

HOUR_US = 3_600_000_000


class Example(NamedTuple):
    """One list of candidates at one instant: items (k,), label int8 (k,), columns float32 (k, 28)."""

    id: int  # of the query
    now: int  # us
    items: list[str]
    label: np.ndarray
    columns: np.ndarray


def logged_examples(
    folder: Path, events: pd.DataFrame, start: datetime, end: datetime, wait_hours: float
) -> Iterator[Example]:
    """The answers of [start, end) in `folder` by time, where at least one candidate was wanted.

    `events`: product events, as pipelines.queries.product_events gives them. Label 1: the visit came to the
    item for the first time within `wait_hours` after the answer. Answers that have not waited so long when
    the events end are left out. Raises DataError without a log.
    """
    if not any(folder.glob("*.parquet")):
        raise DataError(folder, "holds no logged answers", next_step="run `endcap served` in a live shop")
    wait = round(wait_hours * HOUR_US)
    bounds = [pa.scalar(instant, TIMESTAMP) for instant in (start, end)]
    inside = (pc.field("served_ts") >= bounds[0]) & (pc.field("served_ts") < bounds[1])
    table = ds.dataset(folder, format="parquet").to_table(filter=inside & pc.field("session_id").is_valid())
    frame = table.to_pandas()
    frame["served_ts"] = frame["served_ts"].astype("datetime64[us, UTC]").astype("int64")
    frame = frame.sort_values(["served_ts", "request_id"], kind="stable")
    first = events.drop_duplicates(["session_id", "item_id"])
    contacts = {
        name: dict(zip(g["item_id"], g["event_ts"], strict=True)) for name, g in first.groupby("session_id")
    }
    newest = int(events["event_ts"].max())
    for number, (_, rows) in enumerate(frame.groupby("request_id", sort=False)):
        now = int(rows["served_ts"].iloc[0])
        if now + wait > newest:
            continue
        seen = contacts.get(rows["session_id"].iloc[0], {})
        items = rows["item_id"].tolist()
        label = np.array([now < seen.get(item, 0) <= now + wait for item in items], np.int8)
        if label.any():
            yield Example(number, now, items, label, rows[list(COLUMNS)].to_numpy(np.float32))
