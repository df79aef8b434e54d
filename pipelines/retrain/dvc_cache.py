"""DVC's cache without what no release that is kept was made of.

    .dvc/cache/files/md5/<2>/<30>     objects; `.dir`: a list of others
    .dvc/cache/runs/<2>/<64>/<64>     what a stage gave for the same inputs; nothing without its objects
    run/<shop>/locks/<digest>.lock    dvc.lock as it was when that candidate was installed

`dvc gc` knows dvc.lock alone, here or in commits; a kept release is made again from its own.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import orjson

from feature_repo.errors import DataError
from feature_repo.params import root
from feature_repo.places import RUN, at
from pipelines.release.admission import locks

CACHE = Path(".dvc/cache")
MD5 = re.compile(r"\bmd5: ([0-9a-f]{32}(?:\.dir)?)\b")
FOLDER = ".dir"


class Leftover(NamedTuple):
    """A thing that nobody needs any more, and what it takes on the disk."""

    store: str
    name: str
    bytes: int


def unnamed(digests: Collection[str], remove: bool) -> Iterator[Leftover]:
    """Objects that neither dvc.lock nor a kept lock names: those of `digests`, and of other shops.

    Nothing where there is no dvc.lock: that is a shop that was not made here, not one that needs nothing.
    """
    if not (root() / ".dvc").is_dir() or not (root() / "dvc.lock").exists():
        return
    with undisturbed():
        stale = [file for file in locks().glob("*.lock") if file.stem not in digests]
        kept = {file for file in at(RUN).glob("*/locks/*.lock")} - set(stale)
        if remove:
            for file in stale:
                file.unlink()
        needed = _needed([root() / "dvc.lock", *sorted(kept)])
        for path in sorted((root() / CACHE / "files/md5").glob("*/*")):
            if (name := path.parent.name + path.name) not in needed:
                yield Leftover("cache", name, size(path))
                if remove:
                    path.unlink()
        for path in sorted((root() / CACHE / "runs").glob("*/*/*")):
            outs = path.read_text().partition("\nouts:")[2]
            if not set(MD5.findall(outs)) <= needed:
                yield Leftover("cache", path.name, size(path))
                if remove:
                    path.unlink()
                    with suppress(OSError):  # another result of the same inputs is left
                        path.parent.rmdir()


@contextmanager
def undisturbed() -> Iterator[None]:
    """DVC's own lock: no stage is between its outputs and dvc.lock. Raises DataError while DVC is at work."""
    if not (root() / ".dvc").is_dir():
        yield
        return
    from dvc.lock import LockError, make_lock  # takes a second to import

    folder = root() / ".dvc/tmp"
    folder.mkdir(exist_ok=True)
    try:
        held = make_lock(str(folder / "lock"), tmp_dir=str(folder))
        held.lock()
    except LockError as error:
        step = "run it again when `dvc` has ended"
        raise DataError(".dvc/tmp/lock", "DVC is at work", next_step=step) from error
    try:
        yield
    finally:
        held.unlock()


def _needed(lock_files: Collection[Path]) -> set[str]:
    """Names of the objects that these files name, those of folders' lists among them."""
    named = {md5 for file in lock_files for md5 in MD5.findall(file.read_text())}
    for name in [name for name in named if name.endswith(FOLDER)]:
        listed = root() / CACHE / "files/md5" / name[:2] / name[2:]
        if listed.exists():
            named |= {one["md5"] for one in orjson.loads(listed.read_bytes())}
    return named


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; 0 where there is none."""
    return sum(part.lstat().st_size for part in (path, *path.rglob("*")) if part.is_file())
