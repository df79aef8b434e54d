"""The item side of a request: one column per feature, one row per catalogue item, in memory.

Serving fills it from Feast's rows; what changes makes a new snapshot, so that a request reads one state from
start to end. Offline the same matrix is rolled through history in place, by the same rows. Reading 120 items
is then a gather of microseconds instead of a Redis round trip of milliseconds (benchmarks/online.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.catalogue_columns import (
    Doubles,
    Rows,
    bands,
    coded,
    department,
    instants,
    numbers,
    retagged,
    tagged,
    texts,
)
from feature_repo.assemble.orders import Groups, Order
from feature_repo.clock import HOUR_US
from feature_repo.features.catalogue import SHOWN
from feature_repo.features.stored import ITEM_ACTIVITY, MAX_AGE_US
from feature_repo.folds.parts import Counts

Floats = npt.NDArray[np.float32]
NEVER = np.iinfo(np.int64).max
ACTIVITY = tuple(c.name for c in ITEM_ACTIVITY.columns)
COUNTERS = {c.name: c.half_life_us for p in ITEM_ACTIVITY.parts if isinstance(p, Counts) for c in p.counters}


class Newborns(NamedTuple):
    """Items that came after the release was fitted; they are the last `m` rows of a matrix.

    born int64 (m,) us, when each was first said · vectors float32 (m, d), the item tower's · units: the same,
    L2-normalised
    """

    born: Rows
    vectors: Floats
    units: Floats

    @classmethod
    def of(cls, born: Sequence[int], vectors: Sequence[Floats]) -> Self:
        """Of m items; without any, of vectors of no length."""
        stacked = np.array(vectors, np.float32).reshape(len(born), -1 if born else 0)
        norms = np.linalg.norm(stacked, axis=1, keepdims=True)
        return cls(np.array(born, np.int64), stacked, stacked / np.maximum(norms, 1e-12))


class ItemMatrix:
    """Catalogue and activity columns, all of length N, aligned to `ids`.

    price, margin, stock: float64, NaN for unknown · available_from: int64 us, 0 for unknown
    on_sale_from: the same, NEVER for what is sold out
    department, category: int32 codes of the first below the root and of the whole path, 0 for unknown
    brand: int32, 0 for unknown · price_band: int32, 1..5 by quintile of the catalogue, 0 for unknown
    departments, categories, brands: code -> text, "" for 0
    tags: tag -> its rows, empty in a catalogue without tags
    activity[name]: int64 or float64, as declared by the fold `item_activity`
    shown[name]: title, brand, ... as the catalogue has them, for answers; absent where it was not read, and
    without the price, which would cost a copy of a list per new price

    newborns: of the last rows, behind the `own` ones that the release knows
    `updated`, `listed`, `with_newborns` and `as_of` leave this matrix as it is and share with it what did not
    change.
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
        self._forget()
        self.newborns = Newborns.of((), ())
        self.price, self.margin = numbers(catalogue["price"]), numbers(catalogue["margin"])
        self.stock, self.available_from = numbers(catalogue["stock"]), instants(catalogue["available_from"])
        self.shown = {n: list(catalogue[n]) for n in SHOWN if n in catalogue and n != "price"}
        self._words = {name: texts(catalogue[name]) for name in ("category_path", "brand")}
        self._tags = list(catalogue.get("tags", [None] * len(self.ids)))
        self.tags = tagged(self._tags)
        self._code()
        self._derive()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def own(self) -> int:
        """How many rows are the release's own; the others are newborns."""
        return len(self.ids) - len(self.newborns.born)

    def _forget(self) -> None:
        """What was computed of the activity and the catalogue, and is kept."""
        self._popularity: Doubles | None = None
        self._exposure: Doubles | None = None
        self._span: tuple[int, int] | None = None
        self._bestselling: Order | None = None
        self._young: tuple[int, Rows] | None = None

    def _code(self) -> None:
        paths = self._words["category_path"]
        self.categories, self.category = coded(paths, self.own)
        self.departments, self.department = coded([department(path) for path in paths], self.own)
        self.brands, self.brand = coded(self._words["brand"], self.own)
        self._groups: dict[str, Groups] = {}

    def _derive(self) -> None:
        with np.errstate(divide="ignore"):
            self.price_log = np.where(self.price > 0, np.log(self.price), np.nan)
        self.price_band = bands(self.price, self.price[: self.own])
        self.on_sale_from = np.where(self.stock <= 0, NEVER, self.available_from)

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

    def bestselling(self) -> Order:
        """What is not sold out by falling popularity; kept as `popularity` is."""
        if self._bestselling is None:
            rows = np.flatnonzero(~(self.stock <= 0))
            self._bestselling = Order(rows, self.popularity()[rows])
        return self._bestselling

    def grouped(self, name: str) -> Groups:
        """The rows of each code of `category` or `department`."""
        if name not in self._groups:
            self._groups[name] = Groups(getattr(self, name), int(getattr(self, name).max(initial=0)))
        return self._groups[name]

    def younger(self, than: int) -> Rows:
        """Ascending rows of what is on sale, or was first touched, later than `than` (us)."""
        if self._young is None or not 0 <= than - self._young[0] < HOUR_US:
            since = than - than % HOUR_US
            self._young = since, np.flatnonzero(self.born() > since)
        rows = self._young[1]
        return rows[self.born(rows) > than]

    def born(self, rows: Rows | slice = slice(None)) -> Rows:
        return np.maximum(self.available_from[rows], self.activity["first_ts"][rows])

    def warm(self, like: Self) -> Self:
        """This snapshot, with all computed that requests share, as they asked it of the one before."""
        self.popularity(), self.exposure(), next(self.bestselling().parts(), None)
        for name in like._groups:
            self.grouped(name)
        if like._young is not None:
            self.younger(like._young[0])
        return self

    def _first_known(self, *names: str) -> Doubles:
        """The first of these counts that is not 0 everywhere, at the newest instant; else zeros."""
        counts = (self.count(name, self.newest()) for name in names)
        return next((count for count in counts if count.any()), np.zeros(len(self)))

    def apply(self, rows: Rows, values: Mapping[str, npt.ArrayLike]) -> None:
        """Overwrite the activity of `rows` (n,) by `values`, one array of length n per fold column."""
        self._forget()
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

    def listed(self, rows: Rows, catalogue: Mapping[str, Iterable[object]]) -> Self:
        """A snapshot in which the catalogue says other things of `rows` (n,); the ids of a release stay."""
        other = copy(self)
        for name, values in (
            *((name, numbers(catalogue[name])) for name in ("price", "margin", "stock")),
            ("available_from", instants(catalogue["available_from"])),
        ):
            column = getattr(self, name).copy()
            column[rows] = values
            setattr(other, name, column)
        other._words = {
            name: _moved(held, rows, texts(catalogue[name])) for name, held in self._words.items()
        }
        other.shown = {
            name: _moved(held, rows, catalogue[name]) if name in catalogue else held
            for name, held in self.shown.items()
        }
        if any(other._words[name] is not held for name, held in self._words.items()):
            other._code()
        before, after = [self._tags[row] for row in rows.tolist()], list(catalogue.get("tags", ()))
        if after and after != before:
            other._tags = self._tags.copy()
            for row, tags in zip(rows.tolist(), after, strict=True):
                other._tags[row] = tags
            other.tags = retagged(self.tags, before, after, rows)
        other._derive()
        other._bestselling = other._young = None
        return other

    def with_newborns(
        self, ids: Sequence[str], newborns: Newborns, catalogue: Mapping[str, Sequence[object]]
    ) -> Self:
        """A snapshot whose rows behind its own are `ids` (m,), with `catalogue` as __init__ takes it.

        The own rows stay bit by bit; who was a newborn before keeps its activity.
        """
        n, other, tail = self.own, copy(self), ItemMatrix(ids, catalogue)
        before = np.array([self.row.get(item, -1) for item in ids], np.int64)
        kept = before >= n
        other.ids = [*self.ids[:n], *ids]
        other.row = {item: i for i, item in enumerate(other.ids)}
        other.newborns = newborns
        for name in ("price", "margin", "stock", "available_from", "on_sale_from", "price_log"):
            setattr(other, name, np.concatenate([getattr(self, name)[:n], getattr(tail, name)]))
        other._words = {name: [*words[:n], *tail._words[name]] for name, words in self._words.items()}
        other.shown = {name: [*held[:n], *tail.shown[name]] for name, held in self.shown.items()}
        other._tags = [*self._tags[:n], *tail._tags]
        other.tags = tagged(other._tags)
        other._code()
        other.price_band = np.concatenate([self.price_band[:n], bands(tail.price, self.price[:n])])
        other.activity = {
            name: np.concatenate([column[:n], tail.activity[name]]) for name, column in self.activity.items()
        }
        for name, column in other.activity.items():
            column[n:][kept] = self.activity[name][before[kept]]
        other._forget()
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
            self._span = int(touched.min(initial=NEVER)), int(touched.max(initial=0))
        return self._span

    def count(self, name: str, now: int, rows: Rows | slice = slice(None)) -> Doubles:
        """A decayed count of `rows` brought to `now` (us): float64 (n,)."""
        age = now - self.activity["at"][rows]
        value: Doubles = self.activity[name][rows] * np.exp2(-age / COUNTERS[name])
        return value

    def rows_of(self, items: Sequence[str]) -> Rows:
        """Rows of the known ones among `items`, in their order: int64 (<= len(items),)."""
        return np.array([self.row[item] for item in items if item in self.row], np.int64)


def _moved(held: list[Any], rows: Rows, values: Iterable[Any]) -> list[Any]:
    """`held` with `values` at `rows`; itself where it says so already: prices move, titles hardly ever."""
    other = held
    for row, value in zip(rows.tolist(), values, strict=True):
        if other[row] != value:
            other = held.copy() if other is held else other
            other[row] = value
    return other
