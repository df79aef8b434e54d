"""Any file of an export as records: what a line, a row or a nested object says, with its place."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import DataError, shorten
from pipelines.ingest.files.delimited import read_delimited
from pipelines.ingest.files.exports import kind_of_file
from pipelines.ingest.files.jsonlines import NOT_AN_OBJECT, lines_of, object_of


@dataclass(frozen=True)
class Record:
    """One record of a file: its place, its values, or the text and the reason why there are none."""

    row: int
    line: int | None
    values: Mapping[str, Any]
    lost: tuple[str, str | None] | None = None


def read_records(path: Path, known: list[str], needed: tuple[str, ...]) -> tuple[Iterable[Record], str]:
    """All records of a file, in order, and what was found out about its form.

    Of text, the `known` columns are read: null where one is missing, unless it is `needed`. Of JSON lines and
    parquet everything is, nested as it stands. Raises DataError; for these two while the records are read.
    """
    kind = kind_of_file(path)
    if kind == "json":
        return _of_json(path), ""
    if kind == "parquet":
        return _of_parquet(path), ""
    cells = read_delimited(path, known, None, "utf-8", needed)
    columns = [cells.table[str(at)].to_pylist() for at in range(len(known))]
    places = [cells.table[name].to_pylist() for name in ("source_row", "line", "unread_line", "unread_why")]
    records = []
    for row, line, text, why, *values in zip(*places, *columns, strict=True):
        records.append(
            Record(row, line, dict(zip(known, values, strict=True)), (text, why) if text else None)
        )
    return records, cells.told


def _of_json(path: Path) -> Iterator[Record]:
    row = 0
    for at, line in enumerate(lines_of(path, "utf-8"), 1):
        if not line.strip():
            continue
        row += 1
        try:
            values = object_of(line)
            if "\\u" in line:  # half a character, such as a lone \ud83c, is a ValueError
                json.dumps(values, ensure_ascii=False).encode()
            yield Record(row, at, values)
        except (ValueError, RecursionError) as error:
            yield Record(row, at, {}, (line, f"{NOT_AN_OBJECT}: {shorten(str(error)[:80])}"))


def _of_parquet(path: Path) -> Iterator[Record]:
    rows = None
    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            batches = (values for batch in file.iter_batches(10_000) for values in batch.to_pylist())
            for row, values in enumerate(batches, 1):
                yield Record(row, row, values)
    except (pa.ArrowException, OSError, ValueError) as error:
        problem = f"cannot be read to its end: {error}"
        raise DataError(path, problem, rows=rows, next_step="export it again") from error
