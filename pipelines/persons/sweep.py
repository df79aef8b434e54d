"""What a look through the stores finds of the erased, and the rule by which a row is theirs.

A row with a user is that user's; a row without one is its visit's. Where a visit was seen with two users, its
rows without a user are nobody's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.persons.pseudonyms import Persons

OWNER = "owner"  # of a visit's row, "" for nobody
USERS, VISITS = ("user_id", "unit", OWNER), ("session_id",)  # columns and fields that hold ids
EXAMPLES = 2


@dataclass
class Found:
    """Rows of the erased in one place; `held` says why they stay, where they do."""

    place: str
    rows: int = 0
    examples: list[str] = field(default_factory=list)
    held: str = ""
    sha256: str = ""  # of the place as it was left, where it is one file

    def note(self, rows: int, *examples: str) -> None:
        """Count `rows` more."""
        self.rows += rows
        self.examples += examples[: EXAMPLES - len(self.examples)]


class Erased:
    """Is this id, as any store has it, of somebody erased? Ids of an export are known by their pseudonym."""

    def __init__(self, persons: Persons) -> None:
        self._persons = persons
        self._known: dict[str, bool] = {}
        self._clean: dict[Path, tuple[int, int]] = {}
        self.read: dict[str, str] = {}  # stream -> the entry up to which it has been read, and cleaned

    def has(self, name: str) -> bool:
        if (found := self._known.get(name)) is None:
            found = self._known[name] = self._persons.known(name).erased
        return found

    def is_clean(self, path: Path) -> bool:
        """Whether an earlier look found nothing in the file, and it is as it was."""
        return self._clean.get(path) == _stamp(path)

    def found_clean(self, path: Path) -> None:
        self._clean[path] = _stamp(path)

    def owns(self, row: Mapping[str, Any]) -> bool:
        """Whether a row or an event, by its fields, is theirs."""
        users = [row[name] for name in USERS if row.get(name)]
        whose = users[:1] or [row[name] for name in VISITS if row.get(name)]
        return any(isinstance(one, str) and self.has(one) for one in whose)

    def owned(self, table: pa.Table) -> pa.Array:
        """The same of each row of a table, bool (n,)."""
        masks = [self._column(table[name]) for name in ids_of(table.schema)]
        return pc.fill_null(pc.coalesce(*masks), False)

    def tokens(self, text: bytes) -> list[bytes]:
        """Their pseudonyms in a text."""
        return [found.encode() for found in self._persons.tokens(text) if self.has(found)]

    def _column(self, column: pa.ChunkedArray) -> pa.Array:
        """bool (n,), null where there is no id."""
        values = pc.dictionary_encode(column.combine_chunks())
        known = [self.has(one) if one else None for one in values.dictionary.to_pylist()]
        return pa.array(known, pa.bool_()).take(values.indices)


def _stamp(path: Path) -> tuple[int, int]:
    told = path.stat()
    return told.st_mtime_ns, told.st_size


def ids_of(schema: pa.Schema) -> list[str]:
    """Columns that hold ids, whose row it is the first."""
    return [name for name in (*USERS, *VISITS) if name in schema.names]


def has_ids(schema: pa.Schema) -> bool:
    """Whether a table holds ids of persons."""
    names = ids_of(schema)
    return bool(names) and all(pa.types.is_string(schema.field(name).type) for name in names)
