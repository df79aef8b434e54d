"""The door of the batch import and the live door are one: same refusals, same fields, no row lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_export import LATEST, event, item, run, write

from feature_repo.errors import EventError
from feature_repo.events import SCHEMA, TYPES, check_event
from pipelines.columns import Extract, canonical_query, cell, kind_of
from pipelines.quarantine import Intake, event_rules

texts = st.sampled_from(["", "a", "é\u0301", "tab\t", "nul\0", "c1\x85", "x" * 256, "x" * 257, "界" * 256])
words = st.one_of(st.none(), texts, st.text(max_size=5))
counts = st.one_of(st.none(), st.sampled_from([0, 1, 10_000, 10_001, 10**6, 10**6 + 1, 2**31, 2**62, -1]))
prices = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, -0.0, 1e9, 1.000001e9, 9.99]))
instants = st.one_of(
    st.none(),
    st.datetimes(datetime(1990, 1, 1), datetime(2110, 1, 1), timezones=st.just(UTC)),
    st.sampled_from([LATEST, LATEST + timedelta(microseconds=1), datetime(2000, 1, 1, tzinfo=UTC)]),
)
mostly_good = st.fixed_dictionaries(
    {},
    optional={
        "event_id": words,
        "event_ts": instants,
        "created_ts": instants,
        "type": st.one_of(st.sampled_from(TYPES), words),
        "user_id": words,
        "session_id": words,
        "item_id": words,
        "surface": words,
        "request_id": words,
        "slot": counts,
        "list_name": words,
        "position": counts,
        "price": prices,
        "quantity": counts,
        "query": words,
        "device": words,
        "country": words,
        "channel": words,
        "consent": st.sampled_from([True, False, None]),
    },
)
WIDE_SCHEMA = pa.schema([pa.field(f.name, pa.int64() if f.type == pa.int32() else f.type) for f in SCHEMA])


@settings(max_examples=25, deadline=None)
@given(st.lists(mostly_good, min_size=1, max_size=60))
def test_the_batch_door_refuses_what_the_live_door_refuses_and_names_the_same_field(
    changes: list[dict[str, Any]],
) -> None:
    batch = [event(n, **change) for n, change in enumerate(changes)]
    live = []
    for n, candidate in enumerate(batch, 1):
        try:
            check_event(candidate, LATEST)
        except EventError as error:
            live.append((n, error.field))
    with duckdb.connect() as connection:
        connection.register("batch", pa.Table.from_pylist(batch, WIDE_SCHEMA))
        cells = {f.name: (f.name, cell(f.name, kind_of(f), WIDE_SCHEMA.field(f.name).type)) for f in SCHEMA}
        query = canonical_query(SCHEMA, cells, "(SELECT *, row_number() OVER () AS n FROM batch)", "n")
        intake = Intake(connection, SCHEMA, "event_id", event_rules(LATEST))
        intake.add(Extract(Path("batch"), len(batch), query))
        refused = intake.refused(0)
    assert [(row["row"], row["field"]) for row in refused.to_pylist()] == live


@settings(max_examples=6, deadline=None)
@given(st.lists(mostly_good, min_size=1, max_size=25), st.lists(mostly_good, max_size=8))
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
