"""The feature table of docs/features.md, made from the declarations, so that it cannot be out of date."""

from collections.abc import Iterable, Sequence

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.vectorize import READINGS, assemble
from feature_repo.assemble.visitor import Scores, Visitor, history
from feature_repo.features.catalogue import DECLARED, ITEM_CATALOGUE
from feature_repo.folds.fold import DEFAULTS, Fold


def markdown() -> str:
    """Every stored column by view, then the ranker's 28 columns."""
    parts = [_view(declared) for declared in DECLARED]
    return "\n\n".join([*parts, _ranker()])


def _view(declared: Fold) -> str:
    age = f"{declared.max_age_days} days" if declared.max_age_days else "no limit"
    reads = f" Reads {', '.join(f'`{kind}`' for kind in sorted(declared.types))}." if declared.types else ""
    head = f"### {declared.name}\n\n{declared.doc} Key `{declared.key}`, greatest age {age}.{reads}\n\n"
    first = {kind: str(value) or '""' for kind, value in DEFAULTS.items()}
    if declared is ITEM_CATALOGUE:
        first = dict.fromkeys(DEFAULTS, "null")
    rows = [(f"`{c.name}`", f"`{c.dtype}`", c.unit, first[c.dtype], c.doc) for c in declared.columns]
    return head + table(("stored", "type", "unit", "before the first event", "meaning"), rows)


def _ranker() -> str:
    values = iter(_for_nobody())
    rows = [
        (
            f"`{reading.column}`",
            group,
            reading.unit,
            ", ".join(f"`{name}`" for name in reading.of) or "the request",
            next(values),
            reading.doc,
        )
        for group, readings in READINGS.items()
        for reading in readings
    ]
    told = "The last value but one is that of a shopper and an item without any row."
    head = f"### The ranker's columns\n\n{told}\n\n"
    return head + table(("column", "class", "unit", "of", "nobody, nothing", "meaning"), rows)


def _for_nobody() -> list[str]:
    """The 28 values of an unknown visitor and an untouched item, at midnight."""
    empty = {c.name: [None] for c in ITEM_CATALOGUE.columns}
    matrix, visitor, row = ItemMatrix(["nothing"], empty), Visitor(0, "", None), np.zeros(1, np.int64)
    none = Scores(*np.zeros((7, 1), np.float32))
    columns = assemble(visitor, history(visitor, matrix), matrix, row, none)
    return [f"{value:.3g}".replace("nan", "NaN") for value in columns[0].tolist()]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table.

    >>> print(table(("a", "b"), [("1", "2")]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [header, *rows]
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([text[0], f"|{'---|' * len(header)}", *text[1:]])
