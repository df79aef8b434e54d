"""Rows in the order of a column, and by code: kept with a snapshot, read only as far as a request needs."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
FIRST, MORE = 512, 8  # rows of an order that are sorted at first; then so many times as many


def best(values: npt.NDArray[Any], k: int) -> Rows:
    """Places of the `k` greatest of values (n,), best first, equal ones by place; all where n is less.

    >>> best(np.array([1.0, 3.0, 2.0, 3.0, 1.0]), 4).tolist()
    [1, 3, 2, 0]
    """
    if k >= len(values):
        return np.argsort(-values, kind="stable")
    if k <= 0:
        return np.zeros(0, np.int64)
    worst = np.partition(values, len(values) - k)[len(values) - k]
    above = np.flatnonzero(values > worst)
    equal = np.flatnonzero(values == worst)[: k - len(above)]
    return np.concatenate([above[np.argsort(-values[above], kind="stable")], equal])


class Order:
    """`rows` (n,), ascending, by falling `values` (n,), equal ones by row; sorted as far as anybody asked."""

    def __init__(self, rows: Rows, values: npt.NDArray[Any]) -> None:
        self._rows, self._values = rows, values
        self._sorted: Rows = np.zeros(0, np.int64)

    def parts(self) -> Iterator[Rows]:
        """All rows, the best first: 512, then 3,584 more, and so on, so that who needs few pays for few."""
        given, most = 0, FIRST
        while given < len(self._rows):
            if len(self._sorted) < min(most, len(self._rows)):
                self._sorted = self._rows[best(self._values, most)]
            part = self._sorted[given:most]
            given, most = given + len(part), most * MORE
            yield part


class Groups:
    """The rows of every code of `codes` (N,); `most` is the greatest code."""

    def __init__(self, codes: npt.NDArray[np.int32], most: int) -> None:
        self._rows = np.argsort(codes, kind="stable")
        self._ends = np.cumsum(np.bincount(codes, minlength=most + 1))

    def of(self, codes: Rows) -> Rows:
        """Ascending rows that have one of the distinct `codes`."""
        begins = np.where(codes > 0, self._ends[codes - 1], 0)
        spans = zip(begins.tolist(), self._ends[codes].tolist(), strict=True)
        parts = [self._rows[begin:end] for begin, end in spans]
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
