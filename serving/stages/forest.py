"""The ranker's trees as machine code: 120 rows in 0.2 ms instead of the 1.3 ms of stock LightGBM.

lleaves turns ranker.txt into an object file, kept under run/cache and named by what it was made from.
Compiling holds Python's lock for seconds, so it happens in a process of its own:

    python -m serving.stages.forest data/bundles/<digest>/ranker.txt run/cache/<name>.o
"""

import hashlib
import logging
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lleaves
import llvmlite.binding as llvm
import numpy as np

from feature_repo.files import whole
from feature_repo.places import CACHE, NO_TREES, at
from serving.stages.rank import Untrained
from serving.types import Floats

log = logging.getLogger(__name__)
COMPILE_LIMIT_S = 300


class Forest:
    """ranker.txt, compiled; double precision as LightGBM itself, so that offline and online agree."""

    def __init__(self, model: lleaves.Model) -> None:
        self._model = model

    def predict(self, matrix: Floats) -> Floats:
        """float32 (n, 28), NaN for unknown -> float32 (n,), greater is better. One thread."""
        scores: Floats = self._model.predict(matrix, n_jobs=1).astype(np.float32)
        return scores


class StockForest:
    """The same trees read by LightGBM: slower, for machines where lleaves cannot compile."""

    def __init__(self, path: Path) -> None:
        import lightgbm  # 0.3 s that the compiled path does not need

        self._booster = lightgbm.Booster(model_file=str(path))

    def predict(self, matrix: Floats) -> Floats:
        """As Forest.predict."""
        scores: Any = self._booster.predict(matrix, num_threads=1)
        return np.asarray(scores, np.float32)


def trees(path: Path) -> StockForest | Untrained:
    """The ranker at `path`, not compiled."""
    return Untrained() if path.read_text().startswith(NO_TREES) else StockForest(path)


def load(path: Path) -> Forest | StockForest | Untrained:
    """The ranker at `path`, compiled first if nobody did; stock LightGBM, with a warning, if that fails."""
    if isinstance(found := trees(path), Untrained):
        return found
    try:
        compiled = compiled_path(path)
        if not compiled.exists():
            _compile_apart(path, compiled)
        return Forest(_compiled(path, compiled))
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        log.warning("ranker %s: not compiled (%s); serving with stock LightGBM, 1 ms slower", path, error)
        return found


def compiled_path(path: Path) -> Path:
    """Where the object file of `path` lives: the same trees, compiler and processor give the same name."""
    kind = f"{version('lleaves')} {llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    name = hashlib.sha256(path.read_bytes() + kind.encode()).hexdigest()
    return at(CACHE) / f"{name[:24]}.o"


def _compiled(source: Path, cache: Path) -> lleaves.Model:
    model = lleaves.Model(model_file=str(source))
    model.compile(cache=str(cache), raw_score=True)
    return model


def _compile_apart(source: Path, target: Path) -> None:
    command = [sys.executable, "-m", "serving.stages.forest", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_LIMIT_S, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else f"rc {done.returncode}")


if __name__ == "__main__":
    with whole(Path(sys.argv[2])) as draft:  # a reader sees all of it or nothing
        _compiled(Path(sys.argv[1]), draft)
