"""What was said of an item, field by field: of each field the newest word counts, whatever came last.

An export says a whole row, a live change some of its fields. Both have an instant, and both sides take them
in by `tell`: the consumers one by one, in the order of the log, the offline timeline in the order of time.
"""

from collections.abc import Mapping
from typing import Any

from feature_repo.events import ITEM_NAMES
from feature_repo.features.catalogue import ITEM_CATALOGUE

DELETED = "deleted"
COLUMNS = tuple(column.name for column in ITEM_CATALOGUE.columns)
FIELDS = (*ITEM_NAMES[1:], DELETED)

Words = dict[str, tuple[int, Any]]  # field of FIELDS -> instant (us) and value


def tell(words: Words, ts: int, fields: Mapping[str, Any]) -> bool:
    """Take in what was said at `ts` (us); of one instant, what is told last counts. True if anything moved.

    >>> words = {"price": (20, 9.5), "stock": (20, 3)}
    >>> tell(words, 10, {"price": 12.0}), tell(words, 30, {"stock": 0}), words
    (False, True, {'price': (20, 9.5), 'stock': (30, 0)})
    """
    newer = {
        name: (ts, value)
        for name, value in fields.items()
        if name not in words or (words[name][0] <= ts and words[name] != (ts, value))
    }
    words.update(newer)
    return bool(newer)


def whole(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `item_catalogue` as fields to `tell`: it is listed, whatever was said before."""
    return {**{name: row[name] for name in COLUMNS}, DELETED: False}


def row_of(words: Words) -> dict[str, Any]:
    """The row of `item_catalogue`; what was deleted is sold out, as what left an export is.

    >>> row_of({"title": (5, "Mug"), "stock": (5, 3), "deleted": (9, True)})["stock"]
    0
    """
    row = {name: words[name][1] if name in words else None for name in COLUMNS}
    row["available_from"] = row["available_from"] or 0
    if deleted(words):
        row["stock"] = 0
    return row


def deleted(words: Words) -> bool:
    """Whether the item is not to be sold any more, until somebody says something else of it."""
    return bool(words.get(DELETED, (0, False))[1])


def newest(words: Words) -> int:
    """When the last word was said, us: the instant of the row."""
    return max(ts for ts, _ in words.values())
