"""DVC's side of an erase: the cache's copies go, and dvc.lock names the files as they are now.

Afterwards `dvc status` is true: the import is up to date, for data/raw is what it would write; whatever was
made of the old data/raw names it as changed, and `dvc repro` makes it anew, models included.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.params import root
from pipelines.persons import unfinished
from pipelines.persons.stored_files import told
from pipelines.persons.sweep import Erased, Found, has_ids, ids_of

CACHE = Path(".dvc/cache/files/md5")
FOLDER = ".dir"  # a folder's list of files
MAGIC = b"PAR1"
IMPORT = "ingest"  # what it reads and writes both lack the erased


def look(erased: Erased, remove: bool) -> Iterator[Found]:
    """Copies in the cache that hold the erased; with `remove` they are gone, and the lists that name them."""
    gone: set[str] = set()
    lists = []
    for path in sorted((root() / CACHE).glob("*/*")):
        if path.name.endswith(FOLDER):
            lists.append(path)
            continue
        if erased.is_clean(path):
            continue
        if rows := _rows(path, erased):
            yield Found(told(path), rows)
            gone.add(path.parent.name + path.name)
            if remove:
                path.unlink()
        else:
            erased.found_clean(path)
    for path in lists:
        named = {one["md5"] for one in orjson.loads(path.read_bytes())}
        if named & gone and remove:
            path.unlink()


def _rows(path: Path, erased: Erased) -> int:
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            file.seek(0)
            return len(erased.tokens(file.read()))
    try:
        schema = pq.read_schema(path)
    except (OSError, ValueError, pa.ArrowException):
        return 0
    if not has_ids(schema):
        return 0
    return int(pc.sum(erased.owned(pq.read_table(path, columns=ids_of(schema)))).as_py() or 0)


def commit() -> list[str]:
    """Take the changed files of stages into dvc.lock and the cache; the stages that are to be run again.

    dvc.lock is written once, and no status is asked for: each would read dvc.lock and params.yaml again per
    stage, half a second a time. A stage other than the import that reads a changed file is to be run again.
    """
    if not (root() / ".dvc").is_dir():
        return []
    changed = unfinished.changed()
    if not changed:
        return []
    from dvc.repo import Repo  # takes a second to import

    logging.getLogger("dvc").setLevel(logging.ERROR)  # it tells of each stage
    with Repo(str(root())) as repo:
        taken, again = [], []
        for stage in repo.index.stages:
            made, read = (
                [one for one in side if _touched(str(one.fs_path), changed)]
                for side in (stage.outs, stage.deps)
            )
            for out in made:
                out.save()
                out.commit()
            if made:
                taken.append(stage)
            if read and stage.name.partition("@")[0] != IMPORT:
                again.append(stage.name)
            elif made:
                for dep in read:
                    dep.save()
        for file in {stage.dvcfile.path for stage in taken}:
            theirs = [stage for stage in taken if stage.dvcfile.path == file]
            theirs[0].dvcfile.dump_stages(theirs, update_pipeline=False)
        unfinished.committed()
        return sorted(again)


def _touched(out: str, changed: Sequence[str]) -> bool:
    files = [str((root() / name).resolve()) for name in changed]
    return any(file == out or file.startswith(f"{out}/") for file in files)
