"""Files that are there whole or not at all, and parquet of the same bytes for the same rows."""

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import orjson
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import BusyError, DataError

Row = TypeVar("Row")
DRAFT = re.compile(r"\..+\.(\d+)")
DRAFT_IDLE_S = 600.0  # its writer may be on another machine that shares the folder, where a pid says nothing


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place beside `path` for a file or a folder, which becomes `path` when the block ends.

    Where the block raises nothing of it is left and `path` is as it was; what a process left that was killed
    goes with the next one. A folder replaces no folder.

    >>> with whole(Path("release.json")) as draft:                              # doctest: +SKIP
    ...     draft.write_text("{}")
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{escape(path.name)}.*"):
        if (pid := left.suffix[1:]).isdigit() and not psutil.pid_exists(int(pid)):
            _remove(left)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        draft.replace(path)
    finally:
        _remove(draft)


def _remove(draft: Path) -> None:
    if draft.is_dir():
        shutil.rmtree(draft)
    draft.unlink(missing_ok=True)


def secret(file: Path) -> str:
    """The random text in `file`, which is made at the first call, with mode 0600."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        new = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(new, secrets.token_urlsafe(32).encode())
        os.close(new)
    return file.read_text().strip()


def secrets_in(file: Path, *names: str, given: Mapping[str, str] | None = None) -> None:
    """Let the JSON object in `file` hold a random text under each of `names`, mode 0600; what is there stays.

    "console.viewer" is the name `viewer` within the object `console`. `given`: name -> text in place of a
    random one. Raises DataError for a file that is none of ours.
    """
    with alone(file.with_suffix(".lock")):
        held = read_json(file, "remove it, `endcap up` makes another") if file.exists() else {}
        before = orjson.dumps(held)
        for name in names:
            *outer, last = name.split(".")
            place = held
            for part in outer:
                place = place.setdefault(part, {})
                if not isinstance(place, dict):
                    step = "remove it, `endcap up` makes another"
                    raise DataError(file, f"{part!r} is no JSON object", next_step=step)
            place.setdefault(last, (given or {}).get(name) or secrets.token_urlsafe(32))
        if (text := orjson.dumps(held)) == before:
            return
        with whole(file) as draft:
            new = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(new, text)
            os.close(new)


def sweep(folder: Path, idle_s: float = DRAFT_IDLE_S) -> list[Path]:
    """Remove the drafts that killed processes left in `folder`, and say which.

    A draft is what `whole` makes. It is left alone while its process lives, and for `idle_s` seconds after
    something in it changed.
    """
    gone = []
    for path in folder.glob(".*.*"):
        named = DRAFT.fullmatch(path.name)
        if named is None or psutil.pid_exists(int(named[1])):
            continue
        changed = max(part.lstat().st_mtime for part in (path, *path.rglob("*")))
        if time.time() - changed >= idle_s:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            gone.append(path)
    return gone


def write_json(path: Path, value: Any) -> bytes:
    """Write `value` to `path`, readable, all of it or nothing; the bytes."""
    written = orjson.dumps(value, option=orjson.OPT_INDENT_2)
    with whole(path) as draft:
        draft.write_bytes(written)
    return written


def read_json(path: Path, next_step: str, *keys: str) -> dict[str, Any]:
    """The JSON object in a file that we wrote. Raises DataError where it is none or lacks one of `keys`."""
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise DataError(path, f"not JSON: {error}", next_step=next_step) from error
    if not isinstance(value, dict) or (missing := [key for key in keys if key not in value]):
        lacks = f"no {missing[0]!r} in it" if isinstance(value, dict) else "not a JSON object"
        raise DataError(path, f"{lacks}: of another program or version", next_step=next_step)
    return value


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time is in a block that names this file; its folder is made."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def reserved(lock: Path, work: str) -> Iterator[None]:
    """As `alone`, but whoever comes second is refused with the `work` under way. A killed one holds none.

    Raises BusyError.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            told = (
                f"{work}: {file.read() or 'another job'} is at work on the same files; allowed: one at a time"
            )
            raise BusyError(f"{told}. Next: run it again when that has ended") from None
        file.truncate(0)
        file.write(work)
        file.flush()
        yield


def is_reserved(lock: Path) -> bool:
    """Whether somebody is in a block of `reserved` that names this file."""
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # beside other lookers
        except BlockingIOError:
            return True
    return False


def write_parquet(
    path: Path, schema: pa.Schema, tables: Iterable[pa.Table], row_group: int | None = None, **encodings: Any
) -> int:
    """Write `tables` of `schema` to `path`, zstd, all of them or nothing; how many rows."""
    rows = 0
    with whole(path) as draft, pq.ParquetWriter(draft, schema, compression="zstd", **encodings) as writer:
        for table in tables:
            writer.write_table(table, row_group)
            rows += len(table)
    return rows


def chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Lists of `size` rows, the last one shorter.

    >>> list(chunks("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    left = iter(rows)
    while chunk := list(islice(left, size)):
        yield chunk
