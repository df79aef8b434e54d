"""The item side of a request: one column per feature, one row per catalogue item, in memory.

Serving fills it through Feast and refreshes the rows that changed; offline the same matrix is rolled through
history by the same rows. Reading 120 items is then a gather of microseconds instead of a Redis round trip of
milliseconds (FACTS: 0.002 against 6.8 ms).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.aggregates import ITEM_ACTIVITY

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

ACTIVITY = tuple(c.name for c in ITEM_ACTIVITY.columns)
COUNTERS = {c.column: c.half_life_us for group in ITEM_ACTIVITY.counters.values() for c in group}
PRICE_BANDS = 5


class ItemMatrix:
    """Catalogue and activity columns, all of length N, aligned to `ids`.

    price, margin, stock: float64, NaN for unknown · available_from: int64 us, 0 for unknown
    department, category: int32 codes of the first below the root and of the whole path, 0 for unknown
    brand: int32, 0 for unknown · price_band: int32, 1..5 by quintile of the catalogue, 0 for unknown
    activity[name]: int64 or float64, as declared by the fold `item_activity`
    """

    def __init__(self, ids: Sequence[str], catalogue: Mapping[str, Sequence[object]]) -> None:
        """`catalogue`: price, margin, stock, available_from (us), category_path, brand, each of length N."""
        self.ids = list(ids)
        self.row = {item: i for i, item in enumerate(self.ids)}
        self.activity: dict[str, npt.NDArray[Any]] = {
            c.name: np.zeros(len(self.ids), np.int64 if c.dtype == "int64" else np.float64)
            for c in ITEM_ACTIVITY.columns
        }
        self._popularity: Floats | None = None
        self.set_catalogue(catalogue)

    def __len__(self) -> int:
        return len(self.ids)

    def set_catalogue(self, catalogue: Mapping[str, Sequence[object]]) -> None:
        """Replace every catalogue column (prices and stock move; the ids of a release do not)."""
        self.price = _numbers(catalogue["price"])
        self.margin = _numbers(catalogue["margin"])
        self.stock = _numbers(catalogue["stock"])
        self.available_from = np.nan_to_num(_numbers(catalogue["available_from"])).astype(np.int64)
        paths = [str(p) if p else "" for p in catalogue["category_path"]]
        self.category = _codes(paths)
        self.department = _codes([department(path) for path in paths])
        self.brand = _codes([str(b) if b else "" for b in catalogue["brand"]])
        with np.errstate(divide="ignore"):
            self.price_log = np.where(self.price > 0, np.log(self.price), np.nan)
        self.price_band = _bands(self.price)

    def popularity(self) -> Floats:
        """Views of the last 7 days as a share of the greatest, (N,); computed again only after `apply`.

        All counts decay at one rate, so their order and shares do not depend on the instant they are
        brought to.
        """
        if self._popularity is None:
            newest = int(self.activity["at"].max(initial=0))
            views = self.count("views_7d", newest)
            self._popularity = views / max(views.max(initial=0.0), 1e-12)
        return self._popularity

    def apply(self, rows: Rows, values: Mapping[str, npt.ArrayLike]) -> None:
        """Overwrite the activity of `rows` (n,) by `values`, one array of length n per fold column."""
        self._popularity = None
        for name in ACTIVITY:
            self.activity[name][rows] = values[name]

    def count(self, name: str, now: int, rows: Rows | slice = slice(None)) -> Floats:
        """A decayed count of `rows` brought to `now` (us): float64 (n,)."""
        age = now - self.activity["at"][rows]
        value: Floats = self.activity[name][rows] * np.exp2(-age / COUNTERS[name])
        return value

    def rows_of(self, items: Sequence[str]) -> Rows:
        """Rows of the known ones among `items`, in their order: int64 (<= len(items),)."""
        return np.array([self.row[item] for item in items if item in self.row], np.int64)


def department(path: str) -> str:
    """The part of a category path below its root: "Home/Apparel/Men's" -> "Apparel".

    >>> department("Home/Apparel/Men's"), department("Home"), department("")
    ('Apparel', 'Home', '')
    """
    parts = path.split("/")
    return parts[1] if len(parts) > 1 else parts[0]


def _numbers(values: Sequence[object]) -> Floats:
    return np.array([np.nan if v is None else v for v in values], np.float64)


def _codes(values: Sequence[str]) -> npt.NDArray[np.int32]:
    names = {name: i for i, name in enumerate(sorted(set(values) - {""}), 1)}
    return np.array([names.get(v, 0) for v in values], np.int32)


def _bands(price: Floats) -> npt.NDArray[np.int32]:
    known = ~np.isnan(price)
    bands = np.zeros(len(price), np.int32)
    if known.any():
        edges = np.quantile(price[known], np.arange(1, PRICE_BANDS) / PRICE_BANDS)
        bands[known] = np.searchsorted(edges, price[known], side="right") + 1
    return bands
