"""Log-and-wait: the ranker's training rows from what serving logged, labelled by what the visit did later.

The values are those that the ranker saw, whatever was stored at the time, so training cannot differ from
serving by construction. What it costs is the wait, and that a new column has no past.
"""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from feature_repo.assemble.schema import schema_hash
from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.clock import HOUR_US, micros
from feature_repo.errors import DataError
from feature_repo.events import KINDS, TIMESTAMP

SCHEMA = pa.schema(  # of the files that `endcap served` writes
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("served_ts", TIMESTAMP, nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("bundle", pa.string(), nullable=False),
        pa.field("surface", pa.string(), nullable=False),
        pa.field("schema", pa.string(), nullable=False),  # feature_repo.assemble.schema.schema_hash
        pa.field("user_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("item_id", pa.string(), nullable=False),
        *(pa.field(name, pa.float32()) for name in COLUMNS),
    ]
)


class Example(NamedTuple):
    """One list of candidates at one instant: items (k,), label int8 (k,), columns float32 (k, 28)."""

    id: int  # of the query
    now: int  # us
    items: list[str]
    label: np.ndarray
    columns: np.ndarray


class LeftOut(NamedTuple):
    """Answers of the span that teach nothing: by another feature schema, and without their full wait."""

    other_schema: int
    unfinished: int


def logged_examples(
    folder: Path, events: pd.DataFrame, start: datetime, end: datetime, wait_hours: float
) -> tuple[Iterator[Example], LeftOut]:
    """The answers of [start, end) in `folder` by time, where at least one candidate was wanted.

    `events`: product events, as queries.product_events gives them. Label: the visit's strongest contact with
    the item within `wait_hours` after the answer, 1 view, 2 cart, 3 purchase; 0 for none and for an item that
    it had touched before. Answers whose wait reaches `end`, or past the newest event, are left out: a label
    comes from before `end`. Raises DataError without a log, for a
    file of other columns and where every answer is of another feature schema.
    """
    frame = _answers(folder, start, end)
    ours = frame["schema"] == schema_hash()
    if len(frame) and not ours.any():
        names = ", ".join(sorted(set(frame["schema"])))
        problem = f"every answer is of feature schema {names}; allowed: {schema_hash()}"
        raise DataError(
            folder, problem, next_step="log under these features, or set queries.source: recomputed"
        )
    wait = round(wait_hours * HOUR_US)
    done = frame["served_ts"] + wait <= min(micros(end) - 1, int(events["event_ts"].max()))
    left = LeftOut(frame.loc[~ours, "request_id"].nunique(), frame.loc[ours & ~done, "request_id"].nunique())
    return _examples(frame[ours & done], events, wait), left


def _answers(folder: Path, start: datetime, end: datetime) -> pd.DataFrame:
    """SCHEMA of [start, end) in order (served_ts, request_id); served_ts in us, int64."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise DataError(folder, "holds no logged answers", next_step="run `endcap served` in a live shop")
    for file in files:
        if odd := sorted(_told(pq.read_schema(file)) ^ _told(SCHEMA)):
            problem = f"its columns are not those of this program; in one of the two only: {', '.join(odd)}"
            raise DataError(file, problem, next_step="move the file out of the folder")
    bounds = [pa.scalar(instant, TIMESTAMP) for instant in (start, end)]
    inside = (pc.field("served_ts") >= bounds[0]) & (pc.field("served_ts") < bounds[1])
    table = ds.dataset([str(file) for file in files], SCHEMA, format="parquet").to_table(
        filter=inside & pc.field("session_id").is_valid()
    )
    frame = table.to_pandas()
    frame["served_ts"] = frame["served_ts"].astype("datetime64[us, UTC]").astype("int64")
    return frame.sort_values(["served_ts", "request_id"], kind="stable")


def _told(schema: pa.Schema) -> set[str]:
    return {f"{column.name} {column.type}" for column in schema}


def _examples(frame: pd.DataFrame, events: pd.DataFrame, wait: int) -> Iterator[Example]:
    touched = (
        events[["item_id", "event_ts", "type"]].assign(kind=events["type"].map(KINDS)).drop(columns="type")
    )
    visits = {
        name: list(rows.itertuples(index=False, name=None))
        for name, rows in touched.groupby(events["session_id"])
    }
    for number, (_, rows) in enumerate(frame.groupby("request_id", sort=False)):
        now = int(rows["served_ts"].iloc[0])
        kinds: dict[str, int] = {}
        before: set[str] = set()
        for item, ts, kind in visits.get(rows["session_id"].iloc[0], ()):
            if ts <= now:
                before.add(item)
            elif ts <= now + wait and item not in before:
                kinds[item] = max(kind, kinds.get(item, 0))
        items = rows["item_id"].tolist()
        label = np.array([kinds.get(item, 0) for item in items], np.int8)
        if label.any():
            yield Example(number, now, items, label, rows[list(COLUMNS)].to_numpy(np.float32))
