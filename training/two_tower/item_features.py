"""The catalogue as the item tower reads it: small integers and fixed vectors, null kept as its own code."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from training.dataset import Catalogue

LEVELS = 4  # of the category path; deeper ones are rare and thin
BANDS = 10


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


def item_features(catalogue: Catalogue, text: np.ndarray) -> ItemFeatures:
    """Features of every item; `text` is float32 (n, 384) in catalogue order."""
    table = catalogue.table
    paths = [_levels(path) for path in table.column("category_path").to_pylist()]
    return ItemFeatures(
        text=text,
        accessories=_accessory_means(catalogue, text),
        categories=_codes([level for path in paths for level in path]).reshape(-1, LEVELS),
        brand=_codes(table.column("brand").to_pylist()),
        price=bands(table.column("price").to_pylist()),
        margin=bands(table.column("margin").to_pylist()),
    )


def bands(values: Sequence[float | None]) -> np.ndarray:
    """int64: decile of each value among the known ones, 1..BANDS; 0 where unknown.

    >>> bands([1.0, None, 9.0]).tolist()
    [1, 0, 10]
    """
    numbers = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    known = np.isfinite(numbers)
    codes = np.zeros(len(numbers), dtype=np.int64)
    if known.any():
        edges = np.quantile(numbers[known], np.arange(1, BANDS) / BANDS)
        codes[known] = np.searchsorted(edges, numbers[known], side="right") + 1
    return codes


def _levels(path: str | None) -> list[str | None]:
    parts = [part for part in (path or "").split("/") if part]
    return ["/".join(parts[: i + 1]) if i < len(parts) else None for i in range(LEVELS)]


def _codes(values: Sequence[str | None]) -> np.ndarray:
    code = {value: i for i, value in enumerate(sorted({v for v in values if v}), 1)}
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
