"""Exports of shop platforms, made to the public formats, and their import as the job does it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shops.small_export import LATEST, LOOSE, NOON, rows

from feature_repo.params import Shop
from pipelines.ingest.adapters.adapters import adapter_of
from pipelines.ingest.ingest import IngestParams, ingest
from pipelines.ingest.report import IngestReport


def imported(
    adapter: str, folder: Path, constants: IngestParams = LOOSE, mapping: str | None = None
) -> IngestReport:
    """The report of the import into folder/data; of every part, rows in are rows out and those left."""
    shop = Shop("test", adapter, str(folder), mapping and str(folder / mapping), NOON, NOON, NOON)
    report = ingest("test", adapter_of(shop), folder / "data", constants, LATEST)
    for part in report.parts.values():
        assert part.rows_in == part.accepted + part.quarantined + part.skipped
    out = sum(report.outputs[name].rows for name in ("events", "impressions"))
    assert out == report.parts["events"].accepted
    assert report.outputs["items"].rows == report.parts["items"].accepted
    return report


def kept(folder: Path, part: str, *fields: str) -> list[tuple[Any, ...]]:
    """These fields of what was accepted; instants as text to the second, in UTC."""
    found = rows(folder / "data" / "raw" / f"{part}.parquet")
    return [tuple(_plain(row[field]) for field in fields) for row in found]


def refused(folder: Path, part: str) -> list[tuple[Any, ...]]:
    found = rows(folder / "data" / "quarantine" / f"{part}.parquet")
    return [(row["line"], row["field"], row["value"]) for row in found]


def skipped(report: IngestReport) -> dict[str, int]:
    return {why.reason: why.rows for why in report.parts["events"].skips}


def json_lines(records: Sequence[Any]) -> str:
    """One object a line; a text stands as it is."""
    return "".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records)


def csv_of(columns: Sequence[str], records: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([columns, *records])
    return out.getvalue()


def _plain(value: Any) -> Any:
    return f"{value:%Y-%m-%dT%H:%M:%SZ}" if hasattr(value, "tzinfo") else value
