"""Arrays of a release that the workers of a machine share: mapped from run/cache, not copied into each.

    run/cache/<name>.arrays/covisit.data.npy ...     one folder per set of files, made by the first worker

A bundle's own files are not mapped: who damages one on the disk would end every worker that reads it.
"""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.files import alone, sweep, whole
from feature_repo.places import CACHE, at

Arrays = Mapping[str, npt.NDArray[Any]]
KEPT = 6  # folders, those that were opened last; a million items take some GB each

log = logging.getLogger(__name__)


def place(name: str) -> Path:
    """Where the arrays called `name` lie."""
    return at(CACHE) / f"{name}.arrays"


def shared(name: str, read: Callable[[], Arrays]) -> Arrays:
    """What `read` gives, in memory once for all processes; nobody can write to it.

    Its errors pass through. Where the cache cannot be used the arrays are this process' own.
    """
    folder = place(name)
    try:
        with alone(folder.with_suffix(".lock")):  # several workers start at once
            if not folder.is_dir():
                with whole(folder) as draft:
                    draft.mkdir()
                    for key, values in read().items():
                        np.save(draft / f"{key}.npy", values)
                _tidy(folder.parent)
        os.utime(folder)
        return {file.stem: np.asarray(np.load(file, mmap_mode="r")) for file in folder.glob("*.npy")}
    except (OSError, ValueError) as error:  # ValueError: a file that was cut
        log.warning("%s: not shared (%s); this worker holds its own copy", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return read()


def _tidy(cache: Path) -> None:
    sweep(cache)
    folders = sorted(cache.glob("*.arrays"), key=lambda folder: -folder.stat().st_mtime)
    for folder in folders[KEPT:]:  # a process that has it mapped keeps it
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".lock").unlink(missing_ok=True)
