"""Rows of the erased in the files of data/ and run/: parquet without them, texts with their ids struck out.

A release is not rewritten: its digest is its name. It holds no ids, unless a version made it that wrote them.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.files import write_parquet
from feature_repo.params import root, shop
from feature_repo.places import DATA, RUN, at
from pipelines.persons import unfinished
from pipelines.persons.sweep import Erased, Found, has_ids, ids_of

TEXTS = {".json", ".jsonl", ".txt", ".log", ".csv", ".html", ".yaml"}
NOT_OURS = {"redis", "privacy", "erasing"}  # Redis' own files, which it rewrites itself; tombstones
BEFORE, AFTER = rb"(?<![^\s\"'=(\[{,:])", rb"(?![^\s\"')\]},;:])"  # an id stands alone
RELEASE = "manifest.json"
READ = 65_536  # rows at once


def look(erased: Erased, raw: str | None, remove: bool) -> Iterator[Found]:
    """What each file holds; with `remove` it is gone from there. `raw`: the id itself, sought in logs."""
    for path in files():
        if path.suffix not in (".parquet", *TEXTS) or erased.is_clean(path):
            continue
        if path.suffix == ".parquet":
            found = _rows(path, erased, remove)
        else:
            found = _texts(path, erased, raw if path.suffix == ".log" else None, remove)
        if not found.rows:
            erased.found_clean(path)
        yield found


def files() -> Iterator[Path]:
    """Every file of data/, of the active shop's run/ and of the releases that the demo made."""
    for folder in (at(DATA), *sorted(at(RUN).glob("*"))):
        if folder.is_dir() and (folder in (at(DATA), shop().run_dir().resolve()) or not _is_shop(folder)):
            for path in sorted(folder.rglob("*")):
                inside = path.relative_to(folder).parts
                if path.is_file() and not path.is_symlink() and not NOT_OURS & set(inside[:1]):
                    yield path


def _is_shop(folder: Path) -> bool:
    return (folder / "person.key").exists()


def _rows(path: Path, erased: Erased, remove: bool) -> Found:
    found = Found(told(path))
    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError, pa.ArrowException):  # cut short, or no parquet: nobody can read rows there
        return found
    if not has_ids(schema):
        return found
    mask = erased.owned(pq.read_table(path, columns=ids_of(schema)))
    if not (many := pc.sum(mask).as_py()):
        return found
    at_rows = pc.indices_nonzero(mask).to_pylist()[:1]
    found.note(many, *(f"row {row}" for row in at_rows))
    if (path.parent / RELEASE).exists():
        found.held = "a release of an earlier version; promote one that is fitted now, then remove its folder"
    elif remove:
        unfinished.about_to_change(told(path))
        _rewrite(path, schema, erased)
        found.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _rewrite(path: Path, schema: pa.Schema, erased: Erased) -> None:
    """The same file without their rows: the bytes that its stage would write, of the same row groups."""
    with pq.ParquetFile(path) as file:
        group = max(file.metadata.row_group(0).num_rows, 1)
        kept = (pa.Table.from_batches([batch], schema) for batch in file.iter_batches(READ))
        write_parquet(path, schema, regrouped((t.filter(pc.invert(erased.owned(t))) for t in kept), group))


def regrouped(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` each, the last one shorter.

    >>> [len(t) for t in regrouped(iter([pa.table({"a": [1, 2, 3]}), pa.table({"a": [4]})]), 2)]
    [2, 2]
    """
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        while sum(map(len, waiting)) >= rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, rows)
            waiting = [whole.slice(rows)]
    if sum(map(len, waiting)):
        yield pa.concat_tables(waiting)


def _texts(path: Path, erased: Erased, raw: str | None, remove: bool) -> Found:
    """Struck out in place, by as many bytes: who writes on to a log is not disturbed."""
    found, text = Found(told(path)), path.read_bytes()
    held = set(erased.tokens(text))
    wanted = [re.escape(token) for token in held]
    wanted += [BEFORE + re.escape(raw.encode()) + AFTER] if raw else []
    if not wanted:
        return found
    hits = list(re.finditer(b"|".join(wanted), text))
    found.note(len(hits), *(f"byte {hit.start()}" for hit in hits[:1]))
    if hits and remove:
        unfinished.about_to_change(told(path))
        with path.open("r+b") as file:
            for hit in hits:
                file.seek(hit.start())
                file.write(b"x" * len(hit[0]))
    return found


def told(path: Path) -> str:
    """The place, as people know it."""
    home = root().resolve()
    return str(path.relative_to(home) if path.is_relative_to(home) else path)
