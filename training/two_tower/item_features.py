"""The catalogue as the item tower reads it: small integers and fixed vectors, null kept as its own code.

The words and edges behind the integers are those of the fit, and go with it into the bundle: an item that
comes later is coded by the same function, what the fit has not met as unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import sparse

from training.dataset import Catalogue

LEVELS = 4  # of the category path; deeper ones are rare and thin
BANDS = 10
INPUTS = ("text", "accessories", "categories", "brand", "price", "margin")  # of the item tower


@dataclass(frozen=True)
class ItemFeatures:
    """Parallel to the catalogue, n items. Code 0 means unknown in every column.

    text         float32 (n, 384)     sentence vector of the spec
    accessories  float32 (n, 384)     mean sentence vector of the item's accessories, zeros for none
    categories   int64   (n, LEVELS)  code of the path down to each level: "Home", "Home/Bags", ...
    brand        int64   (n,)
    price        int64   (n,)         decile of the catalogue's prices, 1..10
    margin       int64   (n,)         decile of the catalogue's margins, 1..10
    """

    text: np.ndarray
    accessories: np.ndarray
    categories: np.ndarray
    brand: np.ndarray
    price: np.ndarray
    margin: np.ndarray

    def __len__(self) -> int:
        return len(self.brand)


@dataclass(frozen=True)
class Vocabulary:
    """What the codes of one fit mean: words stand at their code less 1, a band lies between two edges.

    categories: paths down to each level · brands · price, margin: BANDS - 1 edges, none where all is unknown
    """

    categories: tuple[str, ...]
    brands: tuple[str, ...]
    price: tuple[float, ...]
    margin: tuple[float, ...]

    @classmethod
    def of(cls, catalogue: Catalogue) -> Self:
        """Of all that a catalogue holds."""
        columns = catalogue.table.to_pydict()
        levels = {level for path in columns["category_path"] for level in _levels(path) if level}
        brands = {brand for brand in columns["brand"] if brand}
        edges = (band_edges(columns[name]) for name in ("price", "margin"))
        return cls(tuple(sorted(levels)), tuple(sorted(brands)), *edges)


def item_features(catalogue: Catalogue, text: np.ndarray, words: Vocabulary | None = None) -> ItemFeatures:
    """Features of every item; `text` is float32 (n, 384) in catalogue order. `words`: by default its own."""
    table, words = catalogue.table, words or Vocabulary.of(catalogue)
    paths = [_levels(path) for path in table.column("category_path").to_pylist()]
    levels = [level for path in paths for level in path]
    return ItemFeatures(
        text=text,
        accessories=_accessory_means(catalogue, text),
        categories=_codes(levels, words.categories).reshape(-1, LEVELS),
        brand=_codes(table.column("brand").to_pylist(), words.brands),
        price=bands(table.column("price").to_pylist(), words.price),
        margin=bands(table.column("margin").to_pylist(), words.margin),
    )


def band_edges(values: Sequence[float | None]) -> tuple[float, ...]:
    """The inner deciles of the known values, BANDS - 1 of them; none where nothing is known."""
    known = _numbers(values)
    known = known[np.isfinite(known)]
    return tuple(np.quantile(known, np.arange(1, BANDS) / BANDS).tolist()) if len(known) else ()


def bands(values: Sequence[float | None], edges: Sequence[float]) -> np.ndarray:
    """int64: the band of each value between `edges`, 1..BANDS; 0 where it or they are unknown.

    >>> bands([1.0, None, 9.0], band_edges([1.0, 9.0])).tolist()
    [1, 0, 10]
    """
    numbers = _numbers(values)
    codes = np.searchsorted(edges, numbers, side="right") + 1
    return np.where(np.isfinite(numbers) & (len(edges) > 0), codes, 0).astype(np.int64)


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _levels(path: str | None) -> list[str | None]:
    parts = [part for part in (path or "").split("/") if part]
    return ["/".join(parts[: i + 1]) if i < len(parts) else None for i in range(LEVELS)]


def _codes(values: Sequence[str | None], words: Sequence[str]) -> np.ndarray:
    code = {word: i for i, word in enumerate(words, 1)}
    return np.array([code.get(v or "", 0) for v in values], dtype=np.int64)


def _accessory_means(catalogue: Catalogue, text: np.ndarray) -> np.ndarray:
    row_of = {item_id: i for i, item_id in enumerate(catalogue.item_ids)}
    links = [
        (i, row_of[a])
        for i, accessories in enumerate(catalogue.table.column("accessories").to_pylist())
        for a in accessories or ()
        if a in row_of
    ]
    if not links:
        return np.zeros_like(text)
    rows, columns = np.array(links).T
    graph = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(text), len(text)))
    degree = np.maximum(np.asarray(graph.sum(axis=1)), 1)
    return np.asarray(graph @ text / degree, dtype=np.float32)
