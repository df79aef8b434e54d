"""The ranker's trees as machine code: 120 rows in 0.2 ms instead of the 1.3 ms of stock LightGBM.

lleaves turns ranker.txt into an object file, kept under run/cache and named by what it was made from. Its
name proves nothing: a cut or damaged one ends the process that calls it. So it is used only beside a seal,
the checksum of a file that was tried. Compiling holds Python's lock for seconds and a trial may crash, so
both happen in a process of its own, which compiles, compares with LightGBM and seals:

    python -m serving.rankers.forest data/bundles/<digest>/ranker.txt run/cache/<name>.o
"""

import ctypes
import hashlib
import logging
import os
import subprocess
import sys
from contextlib import suppress
from functools import cache, cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lleaves
import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.files import alone, sweep, whole
from feature_repo.places import CACHE, NO_TREES, at
from serving.stages.rank import Untrained
from serving.types import Floats

log = logging.getLogger(__name__)
COMPILE_LIMIT_S = 300
COMPILED_KEPT = 16  # object files in the cache, some MB each; the least recently used go
SCORES, CONTRIBUTIONS = 0, 3  # of LightGBM's C interface, as the next three
FLOAT32, ROW_MAJOR, ALL_TREES = 0, 1, -1
TRIAL_ROWS, NEAR = 64, 1e-5  # of the comparison with LightGBM, in float32


class Forest:
    """ranker.txt, compiled; double precision as LightGBM itself, so that offline and online agree."""

    def __init__(self, model: lleaves.Model, source: Path) -> None:
        self._model, self._source = model, source

    def predict(self, matrix: Floats) -> Floats:
        """float32 (n, 28), NaN for unknown -> float32 (n,), greater is better. One thread."""
        scores: Floats = self._model.predict(matrix, n_jobs=1).astype(np.float32)
        return scores

    @cached_property
    def _stock(self) -> "StockForest":
        """What was compiled cannot say what a column adds."""
        return StockForest(self._source)

    def contributions(self, matrix: Floats) -> npt.NDArray[np.float64]:
        """As StockForest.contributions; the first call reads the trees, for tenths of a second."""
        return self._stock.contributions(matrix)


class StockForest:
    """The same trees read by LightGBM: slower, for machines where lleaves cannot compile.

    By LightGBM's C interface: its Python package brings scikit-learn along: 2 to 3 s of a processor, 70 MB.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file that holds no trees."""
        self._library, self._booster = _lightgbm(), ctypes.c_void_p()
        name, rounds = str(path).encode(), ctypes.c_int()
        self._call("BoosterCreateFromModelfile", name, ctypes.byref(rounds), ctypes.byref(self._booster))

    def __del__(self) -> None:
        if self._booster:
            self._library.LGBM_BoosterFree(self._booster)

    def predict(self, matrix: Floats) -> Floats:
        """As Forest.predict."""
        return self._asked(SCORES, matrix, 1)[:, 0].astype(np.float32)

    def contributions(self, matrix: Floats) -> npt.NDArray[np.float64]:
        """(n, 28) -> (n, 29): of each column, and last what a score begins with; a row adds up to its score.

        Tree SHAP (Lundberg et al., Nature Machine Intelligence 2020), LightGBM's own.
        """
        return self._asked(CONTRIBUTIONS, matrix, matrix.shape[1] + 1)

    def _asked(self, kind: int, matrix: Floats, width: int) -> npt.NDArray[np.float64]:
        rows = np.ascontiguousarray(matrix, np.float32)
        answer, filled = np.empty((len(rows), width)), ctypes.c_int64()
        given = rows.ctypes.data_as(ctypes.c_void_p), FLOAT32, *rows.shape, ROW_MAJOR
        taken = ctypes.byref(filled), answer.ctypes.data_as(ctypes.c_void_p)
        self._call(
            "BoosterPredictForMat", self._booster, *given, kind, 0, ALL_TREES, b"num_threads=1", *taken
        )
        assert filled.value == answer.size
        return answer

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self._library, f"LGBM_{name}")(*arguments):
            raise ValueError(self._library.LGBM_GetLastError().decode())


@cache
def _lightgbm() -> ctypes.CDLL:
    """LightGBM's library, without its Python package."""
    package = find_spec("lightgbm")
    assert package is not None and package.submodule_search_locations
    (built,) = Path(package.submodule_search_locations[0], "lib").glob("lib_lightgbm.*")
    library = ctypes.CDLL(str(built))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    return library


def trees(path: Path) -> StockForest | Untrained:
    """The ranker at `path`, not compiled."""
    return Untrained() if untrained(path) else StockForest(path)


def untrained(path: Path) -> bool:
    """No ranker was fitted: its file says so in place of trees."""
    return path.read_text().startswith(NO_TREES)


def load(path: Path) -> Forest | StockForest | Untrained:
    """The ranker at `path`, compiled first if nobody did; stock LightGBM, with a warning, if that fails."""
    if untrained(path):
        return Untrained()
    try:
        compiled = compiled_path(path)
        if not sealed(compiled):
            with alone(compiled.with_suffix(".lock")):  # several workers start at once
                _make(path, compiled)
        return Forest(_compiled(path, compiled), path)
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        log.warning("ranker %s: not compiled (%s); serving with stock LightGBM, 1 ms slower", path, error)
        return StockForest(path)


def compiled_path(path: Path) -> Path:
    """Where the object file of `path` lives: the same trees, compiler and processor give the same name."""
    compiler = f"{version('lleaves')} {version('llvmlite')}"
    kind = f"{compiler} {llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    name = hashlib.sha256(path.read_bytes() + kind.encode()).hexdigest()
    return at(CACHE) / f"{name[:24]}.o"


def sealed(compiled: Path) -> bool:
    """The object file is, byte by byte, the one that a process of its own tried with success."""
    try:
        same = compiled.with_suffix(".sha256").read_text() == _checksum(compiled)
    except (OSError, UnicodeDecodeError):
        return False
    if same:
        with suppress(OSError):  # a cache that cannot be written is as good
            os.utime(compiled.with_suffix(".sha256"))
    return same


def _make(source: Path, compiled: Path) -> None:
    if sealed(compiled):
        return  # by whoever had the lock before
    if compiled.exists():
        log.error("%s is not what was compiled, or was never tried; it is made anew", compiled)
    _compile_apart(source, compiled)
    sweep(compiled.parent)
    seals = sorted(compiled.parent.glob("*.sha256"), key=lambda file: -file.stat().st_mtime)
    for seal in seals[COMPILED_KEPT:]:
        for part in (seal, seal.with_suffix(".o"), seal.with_suffix(".lock")):
            part.unlink(missing_ok=True)


def _checksum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _compiled(source: Path, cache: Path) -> lleaves.Model:
    model = lleaves.Model(model_file=str(source))
    model.compile(cache=str(cache), raw_score=True)
    return model


def _compile_apart(source: Path, target: Path) -> None:
    command = [sys.executable, "-m", "serving.rankers.forest", str(source), str(target)]
    env = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=COMPILE_LIMIT_S, check=False, env=env
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else f"rc {done.returncode}")


def _try(source: Path, compiled: Path) -> None:
    """Raises RuntimeError where the object file is not LightGBM's equal; a bad one may end the process."""
    rows = np.random.default_rng(0).normal(size=(TRIAL_ROWS, len(COLUMNS))).astype(np.float32)
    rows[:: TRIAL_ROWS // 8] = np.nan
    found, expected = (
        Forest(_compiled(source, compiled), source).predict(rows),
        StockForest(source).predict(rows),
    )
    if not np.allclose(found, expected, rtol=NEAR, atol=NEAR):
        raise RuntimeError("the compiled trees say otherwise than LightGBM")


if __name__ == "__main__":
    trees_file, object_file = Path(sys.argv[1]), Path(sys.argv[2])
    with whole(object_file) as draft:  # a reader sees all of it or nothing
        _compiled(trees_file, draft)
        _try(trees_file, draft)
        checksum = _checksum(draft)
    with whole(object_file.with_suffix(".sha256")) as draft:
        draft.write_text(checksum)
