"""ranker.json: trees of XGBoost, asked through its C interface.

Its Python package would bring scikit-learn along, and is no dependency: `make extras` installs it.
"""

import ctypes
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.errors import BundleError
from serving.types import Floats

ALL = {"training": False, "iteration_begin": 0, "iteration_end": 0, "strict_shape": False}
SCORED = json.dumps(ALL | {"type": 1, "missing": np.nan}).encode()  # margins
EXPLAINED = json.dumps(ALL | {"type": 2}).encode()  # contributions


class Boosted:
    """XGBoost's trees, one thread; float32 as in the fit."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a file that holds no trees, BundleError where XGBoost is not installed."""
        self._booster = ctypes.c_void_p()
        self._library = _xgboost(path)
        self._call("BoosterCreate", None, ctypes.c_uint64(0), ctypes.byref(self._booster))
        self._call("BoosterLoadModel", self._booster, str(path).encode())
        self._call("BoosterSetParam", self._booster, b"nthread", b"1")
        self._width = ctypes.c_uint64()
        self._call("BoosterGetNumFeature", self._booster, ctypes.byref(self._width))

    def __del__(self) -> None:
        if self._booster:
            self._library.XGBoosterFree(self._booster)

    def predict(self, matrix: Floats) -> Floats:
        """float32 or float64 (n, 28), NaN for unknown -> float32 (n,), greater is better."""
        rows = self._rows(matrix)
        return self._asked("PredictFromDense", _interface(rows), SCORED, None)

    def contributions(self, matrix: Floats) -> npt.NDArray[np.float64]:
        """(n, 28) -> (n, 29): of each column, and last what a score begins with; a row adds up to its score.

        Tree SHAP (Lundberg et al., Nature Machine Intelligence 2020), XGBoost's own.
        """
        rows, held = self._rows(matrix), ctypes.c_void_p()
        config = json.dumps({"missing": np.nan, "nthread": 1}).encode()
        self._call("DMatrixCreateFromDense", _interface(rows), config, ctypes.byref(held))
        try:
            return self._asked("PredictFromDMatrix", held, EXPLAINED).astype(np.float64)
        finally:
            self._library.XGDMatrixFree(held)

    def _rows(self, matrix: Floats) -> Floats:
        if matrix.shape[1] != self._width.value:
            raise ValueError(f"{matrix.shape[1]} columns for trees that read {self._width.value}")
        return np.ascontiguousarray(matrix, np.float32)

    def _asked(self, name: str, *arguments: Any) -> Floats:
        shape, many = ctypes.POINTER(ctypes.c_uint64)(), ctypes.c_uint64()
        found = ctypes.POINTER(ctypes.c_float)()
        taken = ctypes.byref(shape), ctypes.byref(many), ctypes.byref(found)
        self._call(f"Booster{name}", self._booster, *arguments, *taken)
        return np.ctypeslib.as_array(found, tuple(shape[: many.value])).copy()  # XGBoost's own memory

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self._library, f"XG{name}")(*arguments):
            raise ValueError(self._library.XGBGetLastError().decode().splitlines()[0])


def _interface(rows: Floats) -> bytes:
    """NumPy's array interface, as JSON."""
    told = rows.__array_interface__
    return json.dumps({name: told[name] for name in ("data", "shape", "typestr", "version")}).encode()


@cache
def _library() -> ctypes.CDLL | None:
    """XGBoost's library, without its Python package; None where it is not installed."""
    package = find_spec("xgboost")
    if package is None or not package.submodule_search_locations:
        return None
    (built,) = Path(package.submodule_search_locations[0], "lib").glob("*xgboost.*")
    library = ctypes.CDLL(str(built))
    library.XGBGetLastError.restype = ctypes.c_char_p
    return library


def _xgboost(path: Path) -> ctypes.CDLL:
    if library := _library():
        return library
    raise BundleError(path, "XGBoost", "installed", "not installed", "`make extras`, then start again")
