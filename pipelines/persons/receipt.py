"""The receipt of an erase: what was removed where, by whose wish, without an id; and its check.

{"receipt": 1, "shop": .., "at": .., "why": .., "tombstones": [..], "places": [{"place", "rows", "sha256"}],
 "fitted": [{"release", "serves", "gone"}], "run_again": [..stages]}
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feature_repo.errors import DataError
from feature_repo.files import read_json, write_json
from pipelines.persons.sweep import Found

FORM = 1
NEXT = "name the receipt that `endcap erase --receipt` wrote"


@dataclass
class Receipt:
    """`places` is what was removed, of every run until nothing was left."""

    shop: str
    at: str  # ISO instant
    why: str
    tombstones: list[str]
    places: list[dict[str, Any]] = field(default_factory=list)
    held: list[dict[str, Any]] = field(default_factory=list)
    fitted: list[dict[str, Any]] = field(default_factory=list)
    run_again: list[str] = field(default_factory=list)
    took_s: float = 0.0

    def note(self, found: Sequence[Found]) -> None:
        """Take note of what was removed, and of what could not be."""
        for one in found:
            kept = self.held if one.held else self.places
            told = {"place": one.place, "rows": one.rows}
            told |= {"why": one.held} if one.held else {}
            told |= {"sha256": one.sha256} if one.sha256 else {}
            before = next((row for row in kept if row["place"] == one.place), None)
            if before and not one.held:
                told["rows"] += before["rows"]
            if before:
                kept.remove(before)
            kept.append(told)

    def write(self, file: Path) -> None:
        write_json(file, {"receipt": FORM, **vars(self)})


def read(file: Path) -> Receipt:
    """Raises DataError for a file that is none."""
    if not file.is_file():
        raise DataError(file, "is missing", next_step=NEXT)
    found = read_json(file, NEXT, "receipt", *Receipt.__dataclass_fields__)
    if found.pop("receipt") != FORM or found.keys() != Receipt.__dataclass_fields__.keys():
        raise DataError(file, f"not a receipt of form {FORM}", next_step=NEXT)
    stones = found["tombstones"]
    if not isinstance(stones, list) or not stones or not all(isinstance(one, str) for one in stones):
        raise DataError(file, "tombstones: not a list of texts", next_step=NEXT)
    return Receipt(**found)
