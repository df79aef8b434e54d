"""The item side of a request: one column per feature, one row per catalogue item, in memory.

Serving fills it through Feast; what changes makes a new snapshot, so that a request reads one state from
start to end. Offline the same matrix is rolled through history in place, by the same rows. Reading 120 items
is then a gather of microseconds instead of a Redis round trip of milliseconds (benchmarks/online.py).
"""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from feature_repo.features.stored import ITEM_ACTIVITY, MAX_AGE_US
from feature_repo.folds.parts import Counts

Rows = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

ACTIVITY = tuple(c.name for c in ITEM_ACTIVITY.columns)
COUNTERS = {c.name: c.half_life_us for p in ITEM_ACTIVITY.parts if isinstance(p, Counts) for c in p.counters}
PRICE_BANDS = 5


class ItemMatrix:
    """Catalogue and activity columns, all of length N, aligned to `ids`.

    price, margin, stock: float64, NaN for unknown · available_from: int64 us, 0 for unknown
    department, category: int32 codes of the first below the root and of the whole path, 0 for unknown
    brand: int32, 0 for unknown · price_band: int32, 1..5 by quintile of the catalogue, 0 for unknown
    categories, brands: code -> text, "" for 0 · tags: tag -> its rows, empty in a catalogue without tags
    activity[name]: int64 or float64, as declared by the fold `item_activity`

    `updated`, `with_catalogue` and `as_of` leave this matrix as it is and share with it what did not change.
    """

    def __init__(self, ids: Sequence[str], catalogue: Mapping[str, Sequence[object]]) -> None:
        """`catalogue`: price, margin, stock, available_from (us), category_path, brand, each of length N;
        `tags`, a list of texts per item, where the shop has them.
        """
        self.ids = list(ids)
        self.row = {item: i for i, item in enumerate(self.ids)}
        self.activity: dict[str, npt.NDArray[Any]] = {
            c.name: np.zeros(len(self.ids), np.int64 if c.dtype == "int64" else np.float64)
            for c in ITEM_ACTIVITY.columns
        }
        self._popularity: Doubles | None = None
        self._exposure: Doubles | None = None
        self._span: tuple[int, int] | None = None
        self._set_catalogue(catalogue)

    def __len__(self) -> int:
        return len(self.ids)

    def _set_catalogue(self, catalogue: Mapping[str, Sequence[object]]) -> None:
        self.price = _numbers(catalogue["price"])
        self.margin = _numbers(catalogue["margin"])
        self.stock = _numbers(catalogue["stock"])
        self.available_from = np.nan_to_num(_numbers(catalogue["available_from"])).astype(np.int64)
        paths = [str(p) if p else "" for p in catalogue["category_path"]]
        self.categories, self.category = _codes(paths)
        _, self.department = _codes([department(path) for path in paths])
        self.brands, self.brand = _codes([str(b) if b else "" for b in catalogue["brand"]])
        self.tags = _tagged(catalogue.get("tags", ()))
        with np.errstate(divide="ignore"):
            self.price_log = np.where(self.price > 0, np.log(self.price), np.nan)
        self.price_band = _bands(self.price)

    def popularity(self) -> Doubles:
        """Contacts as a share of the greatest, (N,); computed again only after `apply`.

        Views of the last 7 days; a shop without any counts carts and purchases. Each count decays at one
        rate, so its order and shares do not depend on the instant it is brought to.
        """
        if self._popularity is None:
            contacts = self._first_known("views_7d", "carts_7d", "purchases_30d")
            self._popularity = contacts / max(contacts.max(initial=0.0), 1e-12)
        return self._popularity

    def exposure(self) -> Doubles:
        """How often each item was shown, in means of the catalogue, (N,); kept as `popularity` is.

        Impressions of the last 7 days; a shop that tells of none counts what it does tell of: views, else
        carts, else purchases. Ones where nothing has happened at all.
        """
        if self._exposure is None:
            seen = self._first_known("exposure_7d", "views_7d", "carts_7d", "purchases_30d")
            self._exposure = seen / mean if (mean := float(seen.mean()) if len(seen) else 0.0) else seen + 1.0
        return self._exposure

    def _first_known(self, *names: str) -> Doubles:
        """The first of these counts that is not 0 everywhere, at the newest instant; else zeros."""
        counts = (self.count(name, self.newest()) for name in names)
        return next((count for count in counts if count.any()), np.zeros(len(self)))

    def apply(self, rows: Rows, values: Mapping[str, npt.ArrayLike]) -> None:
        """Overwrite the activity of `rows` (n,) by `values`, one array of length n per fold column."""
        self._popularity = self._exposure = self._span = None
        for name in ACTIVITY:
            self.activity[name][rows] = values[name]

    def updated(self, rows: Rows, values: Mapping[str, npt.ArrayLike]) -> Self:
        """A snapshot in which `rows` (n,) have the activity `values`; itself without rows."""
        if not len(rows):
            return self
        other = copy(self)
        other.activity = {name: column.copy() for name, column in self.activity.items()}
        other.apply(rows, values)
        return other

    def with_catalogue(self, catalogue: Mapping[str, Sequence[object]]) -> Self:
        """A snapshot with other catalogue columns (prices and stock move; the ids of a release do not)."""
        other = copy(self)
        other._set_catalogue(catalogue)
        return other

    def as_of(self, now: int) -> Self:
        """A snapshot without activity that at `now` (us) is older than its view allows; itself without such.

        A row of exactly the age limit is still read, as Feast's point-in-time join reads it.
        """
        if self._touched()[0] >= now - MAX_AGE_US:
            return self
        at = self.activity["at"]
        stale = np.flatnonzero((at > 0) & (at < now - MAX_AGE_US))
        return self.updated(stale, dict.fromkeys(ACTIVITY, 0))

    def newest(self) -> int:
        """Instant of the newest activity, us; 0 where nobody touched any item."""
        return self._touched()[1]

    def _touched(self) -> tuple[int, int]:
        """Oldest and newest instant of any item's activity."""
        if self._span is None:
            at = self.activity["at"]
            touched = at[at > 0]
            never = np.iinfo(np.int64).max
            self._span = int(touched.min(initial=never)), int(touched.max(initial=0))
        return self._span

    def count(self, name: str, now: int, rows: Rows | slice = slice(None)) -> Doubles:
        """A decayed count of `rows` brought to `now` (us): float64 (n,)."""
        age = now - self.activity["at"][rows]
        value: Doubles = self.activity[name][rows] * np.exp2(-age / COUNTERS[name])
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


def _numbers(values: Sequence[object]) -> Doubles:
    return np.array([np.nan if v is None else v for v in values], np.float64)


def _codes(values: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The distinct texts, "" first, and of each value its place among them."""
    names = ["", *sorted(set(values) - {""})]
    place = {name: i for i, name in enumerate(names)}
    return names, np.array([place[v] for v in values], np.int32)


def _tagged(tags: Sequence[object]) -> dict[str, Rows]:
    """Tag -> the rows that have it, from a list of texts (or None) per item."""
    found: dict[str, list[int]] = {}
    for row, texts in enumerate(tags):
        for text in texts or ():  # type: ignore[attr-defined]
            found.setdefault(str(text), []).append(row)
    return {tag: np.array(rows, np.int64) for tag, rows in found.items()}


def _bands(price: Doubles) -> npt.NDArray[np.int32]:
    known = ~np.isnan(price)
    bands = np.zeros(len(price), np.int32)
    if known.any():
        edges = np.quantile(price[known], np.arange(1, PRICE_BANDS) / PRICE_BANDS)
        bands[known] = np.searchsorted(edges, price[known], side="right") + 1
    return bands
