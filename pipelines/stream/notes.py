"""Applied changes of items, from Redis into the offline log: data/logs/items/<first>-<last>.parquet.

A note leaves Redis after its file is there. Who is killed in between writes it again into another file, and
the reader counts it once. Small files are put together, so that their number stays bounded.
"""

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.eventlog.keys import SAID
from feature_repo.events import TIMESTAMP
from feature_repo.files import write_parquet
from feature_repo.offline.item_log import SCHEMA

PART = 10_000  # notes per file
SMALL, MOST_SMALL = 50_000, 32  # rows of a file that still grows, and how many such files there may be


def drain(redis: Any, folder: Path) -> int:
    """Write down what waits; how many notes."""
    written = 0
    while entries := redis.xrange(SAID, count=PART):
        numbers = [number.decode() for number, _ in entries]
        notes = [orjson.loads(fields[b"change"]) for _, fields in entries]
        columns = [
            pa.array(numbers),
            pa.array([item for item, *_ in notes], pa.string()),
            pa.array([ts for _, ts, *_ in notes], pa.int64()).cast(TIMESTAMP),
            pa.array([created for *_, created, _ in notes], pa.int64()).cast(TIMESTAMP),
            pa.array([orjson.dumps(said).decode() for *_, said in notes]),
        ]
        _write(folder, [pa.Table.from_arrays(columns, schema=SCHEMA)])
        redis.xdel(SAID, *numbers)
        written += len(notes)
    if written:
        _put_together(folder)
    return written


def _put_together(folder: Path) -> None:
    small = [file for file in sorted(folder.glob("*.parquet")) if pq.read_metadata(file).num_rows < SMALL]
    if len(small) > MOST_SMALL:
        made = _write(folder, [pq.read_table(file, schema=SCHEMA) for file in small])
        for file in small:
            if file != made:
                file.unlink()


def _write(folder: Path, tables: list[pa.Table]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    first, last = tables[0]["entry"][0].as_py(), tables[-1]["entry"][-1].as_py()
    path = folder / f"{first.replace('-', '.')}-{last.replace('-', '.')}.parquet"
    write_parquet(path, SCHEMA, tables)
    return path
