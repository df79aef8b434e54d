"""`endcap served`: the sampled answers of the live stream, written down before the stream forgets them.

data/logs/served/<first>-<last>.parquet   a row per candidate of each answer sampled since the last run

Redis keeps `serving.served_kept` entries; a shop that trains on its log (queries.source: logged) runs this
more often than they are replaced. Answers of another feature schema than this program's are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from redis import Redis

from feature_repo.assemble.schema import schema_hash
from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import DataError
from feature_repo.events import TIMESTAMP
from feature_repo.features.sources import served_folder
from pipelines.protocol.logged import SCHEMA
from pipelines.release.aliases import connect
from serving.live.exposures import SERVED

PART = 500  # entries per file
SAME = ("request_id", "arm", "bundle", "surface", "user_id", "session_id", "schema")  # an answer has once


def main() -> None:
    """Append the answers that were sampled since the last run to data/logs/served."""
    with connect() as redis:
        answers, rows, others = append(redis, served_folder())
    print(f"data/logs/served: {answers:,} more answers, {rows:,} candidates")
    for schema, left in others.items():
        print(f"{left:,} answers of feature schema {schema} are left out; ours is {schema_hash()}")


def append(redis: Redis, folder: Path) -> tuple[int, int, Counter[str]]:
    """(answers, rows) written: what the stream holds after the newest entry of `folder`; and per schema that
    is not ours, how many answers are left out.

    Raises DataError for an entry of our schema that does not hold 28 values per candidate.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = max((_last_of(path) for path in folder.glob("*.parquet")), default=(0, 0))
    answers = rows = 0
    others = Counter[str]()
    while entries := _after(redis, last):
        first, last = _number(entries[0][0]), _number(entries[-1][0])
        ours = list(_ours(entries, others))
        if not ours:
            continue
        table = pa.Table.from_batches(list(_batches(ours)), SCHEMA)
        path = folder / f"{_name(first)}-{_name(last)}.parquet"
        pq.write_table(table, path.with_suffix(".part"), compression="zstd")
        path.with_suffix(".part").replace(path)
        answers, rows = answers + len(ours), rows + len(table)
    return answers, rows, others


def _after(redis: Redis, last: tuple[int, int]) -> Any:
    return redis.xrange(SERVED, min=f"({last[0]}-{last[1]}", count=PART)


def _ours(entries: Any, others: Counter[str]) -> Iterator[tuple[bytes, dict[str, Any], bytes]]:
    """(number, meta, features) of the entries of our schema; the rest is counted in `others`."""
    for number, fields in entries:
        meta = orjson.loads(fields[b"meta"])
        if meta.get("schema") == schema_hash():
            yield number, meta, fields[b"features"]
        else:
            others[meta.get("schema", "none")] += 1


def _batches(entries: Any) -> Iterator[pa.RecordBatch]:
    for number, meta, raw in entries:
        items = meta.get("items", [])
        if len(raw) != 4 * len(COLUMNS) * len(items):
            raise DataError(
                SERVED,
                f"entry {number.decode()} has {len(raw)} bytes for {len(items)} candidates of {len(COLUMNS)} "
                "float32",
                next_step=f"another version wrote it: delete it with XDEL {SERVED} {number.decode()}",
            )
        matrix = np.frombuffer(raw, "<f4").reshape(-1, len(COLUMNS))
        columns: dict[str, pa.Array] = {"item_id": pa.array(items, pa.string())}
        columns |= {name: pa.array(matrix[:, at], from_pandas=True) for at, name in enumerate(COLUMNS)}
        columns["served_ts"] = pa.array([meta["ts"]] * len(items), pa.int64()).cast(TIMESTAMP)
        columns |= {name: pa.array([meta[name]] * len(items), pa.string()) for name in SAME}
        arrays = [columns[field.name] for field in SCHEMA]
        yield pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _number(entry: bytes) -> tuple[int, int]:
    ms, sequence = entry.decode().split("-")
    return int(ms), int(sequence)


def _name(number: tuple[int, int]) -> str:
    return f"{number[0]}.{number[1]}"


def _last_of(path: Path) -> tuple[int, int]:
    ms, sequence = path.stem.split("-")[1].split(".")
    return int(ms), int(sequence)
