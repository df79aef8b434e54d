"""What an answer carries of its products besides their ids: columns of the catalogue as it is now."""

import math
from collections.abc import Sequence
from typing import Any

from feature_repo.assemble.matrix import ItemMatrix
from serving.types import Slot


def products(slots: Sequence[Slot], names: Sequence[str], matrix: ItemMatrix) -> tuple[dict[str, Any], ...]:
    """Per slot the columns `names`, null for unknown; of an item that left the catalogue all are.

    For example ({"title": "Kelmora pan", "price": 12.9},). The snapshot that made the list is read, so that a
    price is not of another moment than the list.
    """
    columns = [(name, matrix.price if name == "price" else matrix.shown.get(name)) for name in names]
    rows = (matrix.row.get(slot.item_id) for slot in slots)
    return tuple(
        {name: None if row is None or column is None else _known(column[row]) for name, column in columns}
        for row in rows
    )


def _known(value: object) -> object:
    """As JSON has it: a missing number is null."""
    if isinstance(value, float):  # numpy's is one, too
        return None if math.isnan(value) else float(value)
    return value
