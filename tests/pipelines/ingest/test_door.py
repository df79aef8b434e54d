"""The door of the batch import and the live door are one: same refusals, same fields, no row lost."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops.small_export import LATEST, event, item, run, write

from feature_repo.errors import EventError
from feature_repo.events import SCHEMA, TYPES, check_event
from pipelines.ingest.adapters.cells import Extract, canonical_query, cell, kind_of
from pipelines.ingest.quarantine import Intake, event_rules

IN_2000 = datetime(2000, 1, 1, tzinfo=UTC)
TINY = timedelta(microseconds=1)
TEXTS = [
    None,
    "",
    "a",
    "é\u0301",
    "tab\t",
    "nul\0",
    "c1\x85",
    "c1\x9f",
    "\xa0",
    *("x" * n for n in (256, 257)),
    "界" * 256,
]
COUNTS = [None, -1, 0, 1, 10_000, 10_001, 10**6, 10**6 + 1, 2**31, 2**62]
EDGES: dict[str, list[Any]] = {
    **dict.fromkeys((field.name for field in SCHEMA if field.type == pa.string()), TEXTS),
    **dict.fromkeys(("slot", "position", "quantity"), COUNTS),
    "type": [*TYPES, *TEXTS],
    "event_ts": [None, IN_2000 - TINY, IN_2000, LATEST, LATEST + TINY],
    "created_ts": [None, IN_2000 - TINY, LATEST + TINY],
    "price": [None, 0.0, -0.0, 9.99, 1e9, 1.000001e9, -1e-9, math.nan, math.inf, -math.inf],
    "consent": [None, True, False],
}
STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    name: st.one_of(st.sampled_from(values), st.text(max_size=5))
    if "a" in values
    else st.sampled_from(values)
    for name, values in EDGES.items()
}
STRATEGIES["price"] |= st.floats()
STRATEGIES["event_ts"] |= st.datetimes(datetime(1990, 1, 1), datetime(2110, 1, 1), timezones=st.just(UTC))
CHANGES = st.fixed_dictionaries({}, optional=STRATEGIES)
WIDE_SCHEMA = pa.schema([pa.field(f.name, pa.int64() if f.type == pa.int32() else f.type) for f in SCHEMA])


def refused_live(batch: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """(row from 1, field) of each event that check_event refuses."""
    refused = []
    for n, candidate in enumerate(batch, 1):
        try:
            check_event(candidate, LATEST)
        except EventError as error:
            refused.append((n, error.field))
    return refused


def refused_in_batch(batch: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """The same by the import's door."""
    with duckdb.connect() as connection:
        connection.register("batch", pa.Table.from_pylist(batch, WIDE_SCHEMA))
        cells = {f.name: (f.name, cell(f.name, kind_of(f))) for f in SCHEMA}
        query = canonical_query(SCHEMA, cells, "(SELECT *, row_number() OVER () AS n FROM batch)", "n")
        intake = Intake(connection, SCHEMA, "event_id", event_rules(LATEST))
        intake.add(Extract(Path("batch"), len(batch), query))
        return [(row["row"], row["field"]) for row in intake.refused(0).to_pylist()]


def test_both_doors_draw_every_limit_at_the_same_value() -> None:
    batch = [event(0, **{name: value}) for name, values in EDGES.items() for value in values]
    batch += [event(0, type=kind, item_id=None) for kind in TYPES]
    assert refused_in_batch(batch) == refused_live(batch)
    assert 0.3 < len(refused_live(batch)) / len(batch) < 0.7


@settings(max_examples=25, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=60))
def test_both_doors_name_the_same_field_of_an_event_with_many_faults(changes: list[dict[str, Any]]) -> None:
    batch = [event(n, **change) for n, change in enumerate(changes)]
    assert refused_in_batch(batch) == refused_live(batch)


@settings(max_examples=6, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=25), st.lists(CHANGES, max_size=8))
def test_rows_in_equal_rows_out_plus_rows_in_quarantine(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]], shown: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("invariant")
    narrow = {"slot", "position", "quantity"}
    fits = lambda row: all(row[key] is None or abs(row[key]) < 2**31 for key in narrow & set(row))  # noqa: E731
    first = [event(n, **row) for n, row in enumerate(events) if fits(row)] or [event(0)]
    second = [event(n, **row) for n, row in enumerate(shown) if fits(row)] or [event(0)]
    export = write(folder / "export", events=first, impressions=second, items=[item("i1")])
    report = run(export, folder / "data")
    raw, quarantine = folder / "data" / "raw", folder / "data" / "quarantine"
    out = sum(pq.read_metadata(raw / f"{name}.parquet").num_rows for name in ("events", "impressions"))
    held = [pq.read_metadata(quarantine / f"{name}.parquet").num_rows for name in ("events", "impressions")]
    assert len(first) + len(second) == out + sum(held)
    for part, read, refused in zip(("events", "impressions"), (first, second), held, strict=True):
        assert report.parts[part].rows_in == len(read) == report.parts[part].accepted + refused
