"""A small canonical export to import, and ways to look at what came of it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.events import ITEM_SCHEMA, SCHEMA
from feature_repo.persons.pseudonyms import Persons
from pipelines.ingest.adapters.adapters import Canonical
from pipelines.ingest.ingest import IngestParams, ingest
from pipelines.ingest.report import IngestReport

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
LOOSE = IngestParams(
    max_quarantined_share=1.0,
    repairs={},
    returns="quarantine",
    latest=LATEST,
    memory_limit="500MB",
    threads=1,
    row_group_rows=1000,
)
STRICT = dataclasses.replace(LOOSE, max_quarantined_share=0.1)


def event(n: int, **changes: Any) -> dict[str, Any]:
    """A canonical view; event n happens n seconds after noon."""
    when = NOON + timedelta(seconds=n)
    plain = {"event_id": f"e{n}", "event_ts": when, "created_ts": when, "type": "product_viewed"}
    return plain | {"session_id": "s1", "item_id": "i1", "price": 9.5, "consent": True} | changes


def item(name: str, **changes: Any) -> dict[str, Any]:
    return {"item_id": name, "title": name.upper(), "price": 9.5, "currency": "EUR"} | changes


def write(folder: Path, **parts: list[dict[str, Any]]) -> Path:
    """A canonical export."""
    folder.mkdir(exist_ok=True)
    for part, rows in parts.items():
        schema = ITEM_SCHEMA if part == "items" else SCHEMA
        loose = pa.schema([field.with_nullable(True) for field in schema])
        pq.write_table(pa.Table.from_pylist(rows, loose), folder / f"{part}.parquet")
    return folder


def run(
    export: Path, data: Path, constants: IngestParams = LOOSE, persons: Persons | None = None
) -> IngestReport:
    return ingest("test", Canonical(export), data, constants, LATEST, persons)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()
