"""Where a person still stands: every file of a folder, unpacked, and every key and value of a Redis."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.persons.pseudonyms import PREFIX


def needles(*names: str) -> re.Pattern[bytes]:
    """Ids and pseudonyms as text, and the 16 bytes that the digits of a pseudonym are."""
    digits = [name.removeprefix(f"{PREFIX}-") for name in names if name.startswith(f"{PREFIX}-")]
    found = [name.encode() for name in names] + [bytes.fromhex(one) for one in digits]
    found += [one.encode() for one in digits]
    return re.compile(b"|".join(map(re.escape, found)))


def traces(home: Path, redis: Any, wanted: re.Pattern[bytes]) -> list[str]:
    """Files and keys in which any of `wanted` stands."""
    paths = [path for path in sorted(home.rglob("*")) if path.is_file()]
    found = [
        str(path.relative_to(home))
        for path in paths
        if wanted.search(str(path).encode()) or any(map(wanted.search, unpacked(path.read_bytes())))
    ]
    values = {
        b"stream": redis.xrange,
        b"hash": redis.hgetall,
        b"set": redis.smembers,
        b"string": redis.get,
        b"zset": lambda key: redis.zrange(key, 0, -1),
        b"list": lambda key: redis.lrange(key, 0, -1),
    }
    for key in redis.scan_iter():
        held = values[redis.type(key)](key)
        if wanted.search(key) or any(map(wanted.search, flat(held))):
            found.append(repr(key))
    return found


def unpacked(raw: bytes) -> Iterator[bytes]:
    """The bytes, and what they hold where they are parquet, Arrow, gzip, zip (npz) or numpy."""
    yield raw
    if raw[:4] == b"PAR1":
        yield from flat(pq.read_table(io.BytesIO(raw)).to_pydict())
    elif raw[:6] == b"ARROW1":
        yield from flat(pa.ipc.open_file(raw).read_all().to_pydict())
    elif raw[:2] == b"\x1f\x8b":
        yield from unpacked(gzip.decompress(raw))
    elif raw[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(raw)) as file:
            for name in file.namelist():
                yield from unpacked(file.read(name))
    elif raw[:6] == b"\x93NUMPY":
        held = np.load(io.BytesIO(raw), allow_pickle=False)
        yield str(held.tolist()).encode() if held.dtype.kind in "US" else held.tobytes()


def flat(value: Any) -> Iterator[bytes]:
    """Every text and every bytes inside, bytes unpacked."""
    if isinstance(value, dict):
        for name, held in value.items():
            yield from flat(name)
            yield from flat(held)
    elif isinstance(value, list | tuple | set):
        for held in value:
            yield from flat(held)
    elif isinstance(value, bytes):
        yield from unpacked(value)
    elif isinstance(value, str):
        yield value.encode()
