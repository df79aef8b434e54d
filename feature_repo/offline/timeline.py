"""What was known at instants of the past, through Feast: visitors' rows, and the item matrix rolled forward.

One request is one visitor and N candidates. Offline the visitors' rows are read by a point-in-time join, and
the candidates' come from one matrix that moves through time, as serving keeps one matrix up to date.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.assemble.matrix import ACTIVITY, ItemMatrix, Rows
from feature_repo.clock import instant
from feature_repo.features.catalogue import ITEM_CATALOGUE, TAGS
from feature_repo.features.entities import BY_KEY
from feature_repo.features.sources import EVENT_TIMESTAMP
from feature_repo.features.store import open_store
from feature_repo.features.stored import ITEM_ACTIVITY
from feature_repo.places import feature_file


def historical(entities: pd.DataFrame, service: str) -> pd.DataFrame:
    """The rows of `service` ("visitor", "items", "ranker" or "tower") as they stood at `event_timestamp`.

    `entities` holds `event_timestamp` (aware, or naive UTC) and the service's keys: user_id and session_id
    for "visitor", item_id for "items"; a key may be None. Answers have the same length and order: the columns
    of `entities`, then per view one column of dicts (column -> python value), None where nothing is stored
    yet or the newest row is older than the view's age limit. Events of the very instant are included: ask
    a microsecond earlier for what was known strictly before.
    """
    keys = {name: "string" for name in entities.columns if name in BY_KEY}
    store = open_store()
    features = store.get_feature_service(service)
    job = store.get_historical_features(entities.astype(keys), features=features, full_feature_names=True)
    table = job.to_arrow()
    answers = entities.copy()
    for projection in features.feature_view_projections:
        names = [feature.name for feature in projection.features]
        columns = [table[f"{projection.name}__{name}"].to_pylist() for name in names]
        rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        answers[projection.name] = pd.Series(
            [None if all(v is None for v in row.values()) else row for row in rows], answers.index, object
        )
    return answers


def matrix_at(ids: Sequence[str], now: int) -> ItemMatrix:
    """The catalogue `ids` with their activity as of `now` (us), read through Feast."""
    asked = pd.DataFrame({"item_id": list(ids), EVENT_TIMESTAMP: instant(now)})
    answers = historical(asked, "items")
    unknown: dict[str, Any] = {c.name: None for c in ITEM_CATALOGUE.columns}
    catalogue = [row or unknown for row in answers["item_catalogue"]]
    matrix = ItemMatrix(ids, {name: [row[name] for row in catalogue] for name in unknown})
    touched = [(i, row) for i, row in enumerate(answers["item_activity"]) if row is not None]
    rows = np.array([i for i, _ in touched], np.int64)
    matrix.apply(rows, {name: [row[name] for _, row in touched] for name in ACTIVITY})
    return matrix


class _Rows:
    """The rows of a view after an instant, in the order of time: those of some items, and some columns."""

    def __init__(self, view: str, names: Sequence[str], ids: Sequence[str], start: int) -> None:
        after = pc.field(EVENT_TIMESTAMP) > pa.scalar(instant(start), pa.timestamp("us", tz="UTC"))
        columns = [ITEM_ACTIVITY.key, EVENT_TIMESTAMP, *names]
        table = pq.read_table(feature_file(view), columns=columns, filters=after)
        order = np.argsort(table[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy(), kind="stable")
        row_of = pc.index_in(table[ITEM_ACTIVITY.key], value_set=pa.array(ids, pa.string()))
        rows = pc.fill_null(row_of, -1).to_numpy()[order]
        order, self._rows = order[rows >= 0], rows[rows >= 0]
        self._ts = table[EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()[order]
        self._values = {name: _column(table[name])[order] for name in names}
        self._next = 0

    def until(self, now: int) -> tuple[Rows, dict[str, npt.NDArray[Any]]]:
        """Rows of `ids` and their values since the last call up to `now` (us); an item once per change."""
        span = slice(self._next, int(np.searchsorted(self._ts, now, side="right")))
        self._next = span.stop
        return self._rows[span], {name: values[span] for name, values in self._values.items()}


def _column(values: pa.ChunkedArray) -> npt.NDArray[Any]:
    """8 bytes a value, where none is null."""
    return np.array(values.to_pylist(), object) if values.null_count else values.to_numpy()


class ItemTimeline:
    """Rolls an item matrix forward through the offline rows of `item_activity` and `item_catalogue`.

    >>> timeline = ItemTimeline.at(ids, start=1_476_662_400_000_000)    # doctest: +SKIP
    >>> timeline.advance(1_476_662_460_000_000)                         # doctest: +SKIP
    >>> timeline.matrix.count("views_24h", now)                         # doctest: +SKIP
    """

    def __init__(self, matrix: ItemMatrix, start: int) -> None:
        """`matrix` stands at `start` (us); the rows after it are held in memory, 64 bytes each."""
        self.matrix, self.now = matrix, start
        self._activity = _Rows(ITEM_ACTIVITY.name, ACTIVITY, matrix.ids, start)
        names = [
            c.name for c in ITEM_CATALOGUE.columns if c.name != TAGS
        ]  # for rules, which history has none of
        self._catalogue = _Rows(ITEM_CATALOGUE.name, names, matrix.ids, start)

    @classmethod
    def at(cls, ids: Sequence[str], start: int) -> ItemTimeline:
        """A timeline of the catalogue `ids` from `start` (us), read through Feast."""
        return cls(matrix_at(ids, start), start)

    def advance(self, now: int) -> npt.NDArray[np.int64]:
        """Bring the matrix to `now` (us), events of that instant included; the rows touched, repeated."""
        if now < self.now:
            raise ValueError(f"now: {now} lies before {self.now}; a timeline only moves forward")
        # An item stands in the span once per change, in order of time: the last assignment stays.
        rows, values = self._activity.until(now)
        self.matrix.apply(rows, values)
        listed, said = self._catalogue.until(now)
        if len(listed):
            self.matrix = self.matrix.listed(listed, said)
        self.matrix = self.matrix.as_of(now)
        self.now = now
        return rows
