"""`endcap served`: the sampled answers of the live stream, written down before the stream forgets them.

data/logs/served/<first>-<last>.parquet   a row per candidate of each answer sampled since the last run

Redis keeps `serving.served_kept` entries; a shop that trains on its log (queries.source: logged) runs this
more often than they are replaced. Answers of another feature schema than this program's are left out, and so
is a candidate that a merchandiser's rule pinned: it was not the ranker that showed it.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_repo.assemble.schema import schema_hash
from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.events import TIMESTAMP
from feature_repo.files import write_parquet
from feature_repo.online.connection import connect
from feature_repo.places import SERVED_LOG, at
from pipelines.protocol.logged import SCHEMA
from serving.live.exposures import SERVED, decode, unpinned
from serving.types import Floats

PART = 500  # entries per file
SAME = ("request_id", "arm", "bundle", "surface", "user_id", "session_id", "schema")  # an answer has once


def main() -> None:
    """Append the answers that were sampled since the last run to data/logs/served."""
    with connect() as redis:
        answers, rows, others = append(redis, at(SERVED_LOG))
    print(f"{SERVED_LOG}: {answers:,} more answers, {rows:,} candidates")
    for schema, left in others.items():
        print(f"{left:,} answers of feature schema {schema} are left out; ours is {schema_hash()}")


def append(redis: Any, folder: Path) -> tuple[int, int, Counter[str]]:
    """(answers, rows) written: what the stream holds after the newest entry of `folder`; and per schema that
    is not ours, how many answers are left out.

    Errors as serving.live.exposures.decode.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = max((_last_of(path) for path in folder.glob("*.parquet")), default=(0, 0))
    answers = rows = 0
    others = Counter[str]()
    while entries := redis.xrange(SERVED, min=f"({last[0]}-{last[1]}", count=PART):
        first, last = _number(entries[0][0]), _number(entries[-1][0])
        ours = list(decode(entries, others))
        if not ours:
            continue
        table = pa.Table.from_batches([_batch(*answer) for answer in ours], SCHEMA)
        write_parquet(folder / f"{_name(first)}-{_name(last)}.parquet", SCHEMA, [table])
        answers, rows = answers + len(ours), rows + len(table)
    return answers, rows, others


def _batch(meta: dict[str, Any], features: Floats) -> pa.RecordBatch:
    items, features = unpinned(meta, features)
    columns: dict[str, pa.Array] = {"item_id": pa.array(items, pa.string())}
    columns |= {name: pa.array(features[:, at], from_pandas=True) for at, name in enumerate(COLUMNS)}
    columns["served_ts"] = pa.array([meta["ts"]] * len(items), pa.int64()).cast(TIMESTAMP)
    columns |= {name: pa.array([meta[name]] * len(items), pa.string()) for name in SAME}
    return pa.RecordBatch.from_arrays([columns[field.name] for field in SCHEMA], schema=SCHEMA)


def _number(entry: bytes) -> tuple[int, int]:
    ms, sequence = entry.decode().split("-")
    return int(ms), int(sequence)


def _name(number: tuple[int, int]) -> str:
    return f"{number[0]}.{number[1]}"


def _last_of(path: Path) -> tuple[int, int]:
    ms, sequence = path.stem.split("-")[1].split(".")
    return int(ms), int(sequence)
