"""Columns of the catalogue as arrays: numbers, instants, codes of texts, price bands, tags."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
PRICE_BANDS = 5


def department(path: str) -> str:
    """The part of a category path below its root: "Home/Apparel/Men's" -> "Apparel".

    >>> department("Home/Apparel/Men's"), department("Home"), department("")
    ('Apparel', 'Home', '')
    """
    parts = path.split("/")
    return parts[1] if len(parts) > 1 else parts[0]


def numbers(values: Iterable[object]) -> Doubles:
    """NaN for None."""
    return np.array([np.nan if v is None else v for v in values], np.float64)


def instants(values: Iterable[object]) -> Rows:
    """Microseconds; 0 for None."""
    return np.nan_to_num(numbers(values)).astype(np.int64)


def texts(values: Iterable[object]) -> list[str]:
    """An empty text for None."""
    return [str(value) if value else "" for value in values]


def coded(values: Sequence[str], own: int) -> tuple[list[str], npt.NDArray[np.int32]]:
    """The distinct texts, "" first, and of each value its place among them: int32 (n,).

    The first `own` values have the codes that they would have alone; what only the others say comes behind.

    >>> coded(["b", "a", "", "c", "b"], 3)
    (['', 'a', 'b', 'c'], array([2, 1, 0, 3, 2], dtype=int32))
    """
    first = sorted({*values[:own]} - {""})
    names = ["", *first, *sorted({*values[own:]} - {"", *first})]
    place = {name: i for i, name in enumerate(names)}
    return names, np.array([place[value] for value in values], np.int32)


def bands(price: Doubles, catalogue: Doubles) -> npt.NDArray[np.int32]:
    """1 to PRICE_BANDS by the quantiles of `catalogue`, 0 for an unknown price: int32 (n,)."""
    known = ~np.isnan(price)
    found = np.zeros(len(price), np.int32)
    if known.any() and (told := ~np.isnan(catalogue)).any():
        edges = np.quantile(catalogue[told], np.arange(1, PRICE_BANDS) / PRICE_BANDS)
        found[known] = np.searchsorted(edges, price[known], side="right") + 1
    return found


def retagged(
    tags: dict[str, Rows], before: Sequence[object], after: Sequence[object], rows: Rows
) -> dict[str, Rows]:
    """`tags` after the lists of `rows` (n,) became others; a tag that is in none of them keeps its array."""
    found = dict(tags)
    for old, new, row in zip(before, after, rows.tolist(), strict=True):
        was, now = ({str(word) for word in words or ()} for words in (old, new))  # type: ignore[attr-defined]
        for tag in was - now:
            found[tag] = found[tag][found[tag] != row]
        for tag in now - was:
            held = found.get(tag, np.zeros(0, np.int64))
            found[tag] = np.insert(held, np.searchsorted(held, row), row)
    return {tag: held for tag, held in found.items() if len(held)}


def tagged(tags: Iterable[object]) -> dict[str, Rows]:
    """Tag -> the rows that have it, from a list of texts (or None) per item."""
    found: dict[str, list[int]] = {}
    for row, words in enumerate(tags):
        for word in words or ():  # type: ignore[attr-defined]
            found.setdefault(str(word), []).append(row)
    return {tag: np.array(rows, np.int64) for tag, rows in found.items()}
