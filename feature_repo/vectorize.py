"""The one assembler: stored rows of user, session and items -> the ranker's 28 columns.

Training and serving both call `assemble`; nothing else may compute a model input. Everything that depends on
`now` happens here, so a stored row may be a second or a week old and gives the same value. The columns are
those that the folds, the catalogue and feature_repo.crosses declare; there must be 28.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.aggregates import ITEM_ACTIVITY, SESSION_CONTEXT, USER_HISTORY
from feature_repo.catalogue import ITEM_CATALOGUE
from feature_repo.crosses import CROSSES, Meeting
from feature_repo.errors import DefinitionError
from feature_repo.folds import Reading
from feature_repo.matrix import ItemMatrix, Rows
from feature_repo.vocabulary import device_code

Floats = npt.NDArray[np.float32]

REQUEST: tuple[Reading, ...] = (
    Reading("hour_of_day", "h", "UTC", (), lambda visitor: visitor.now // 3_600_000_000 % 24),
    Reading("device", "code", "as the request says", (), lambda visitor: device_code(visitor.device)),
)
READINGS: Mapping[str, tuple[Reading, ...]] = {  # class of columns -> its columns
    "user": USER_HISTORY.readings,
    "context": (*SESSION_CONTEXT.readings, *REQUEST),
    "item": (*ITEM_CATALOGUE.readings, *ITEM_ACTIVITY.readings),
    "cross": CROSSES,
}
CLASSES = {name: tuple(reading.column for reading in group) for name, group in READINGS.items()}
COLUMNS = tuple(column for group in CLASSES.values() for column in group)  # in the order of the matrix
WIDTH = 28


def check_width(columns: Sequence[str]) -> None:
    """DefinitionError unless the ranker has exactly 28 columns with 28 names."""
    if len(columns) != WIDTH or len(set(columns)) != WIDTH:
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise DefinitionError(
            f"ranker columns: {len(columns)} are declared{f', {twice} twice' if twice else ''}; allowed: "
            f"exactly {WIDTH}. Next: take `column=` from what earns least (data/models/ranker/importance.csv)"
        )


check_width(COLUMNS)

EMPTY_USER: Mapping[str, Any] = USER_HISTORY.row(USER_HISTORY.new())
EMPTY_SESSION: Mapping[str, Any] = SESSION_CONTEXT.row(SESSION_CONTEXT.new())


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks, where and when, with the stored rows as read (the empty row where there is none)."""

    now: int  # us since 1970, UTC
    surface: str
    session_id: str | None
    device: str | None = None
    channel: str | None = None
    country: str | None = None
    user: Mapping[str, Any] = None  # type: ignore[assignment]
    session: Mapping[str, Any] = None  # type: ignore[assignment]
    anchors: tuple[str, ...] = ()  # items of the page or cart that the request names, newest last

    def __post_init__(self) -> None:
        object.__setattr__(self, "user", self.user or EMPTY_USER)
        object.__setattr__(self, "session", self.session or EMPTY_SESSION)


@dataclass(frozen=True, slots=True)
class History:
    """The shopper's contacts for the models, oldest first, newest last; at most `limit` distinct items.

    rows int64 (h,) catalogue rows · ages float32 (h,) seconds since the contact · kinds int64 (h,) 1 view,
    2 cart, 3 purchase · current bool (h,) contact in this visit (or named by the request)
    """

    rows: Rows
    ages: Floats
    kinds: Rows
    current: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scores:
    """What retrieval computed for the candidates, each float32 (n,)."""

    tower: Floats
    covisit: Floats
    ease: Floats
    last_item: Floats


def history(visitor: Visitor, matrix: ItemMatrix, limit: int = 20) -> History:
    """Contacts of earlier visits, of this visit and of the request, merged; unknown items are left out.

    An item seen in several places stands once, at its newest contact.
    """
    user, session = visitor.user, visitor.session
    contacts: dict[str, tuple[int, int, bool]] = {}
    for item, ts, kind in zip(user["recent_items"], user["recent_ts"], user["recent_kinds"], strict=True):
        contacts[item] = (ts, kind, False)
    for item, ts, kind in zip(
        session["contact_items"], session["contact_ts"], session["contact_kinds"], strict=True
    ):
        contacts.pop(item, None)
        contacts[item] = (ts, kind, True)
    for item in visitor.anchors:
        ts, kind, _ = contacts.pop(item, (visitor.now, 1, True))
        contacts[item] = (ts, kind, True)
    known = [(matrix.row[item], *rest) for item, rest in contacts.items() if item in matrix.row][-limit:]
    rows, stamps, kinds, current = zip(*known, strict=True) if known else ((), (), (), ())
    ages = (visitor.now - np.array(stamps, np.int64)) / 1e6
    return History(
        np.array(rows, np.int64),
        np.maximum(ages, 0).astype(np.float32),
        np.array(kinds, np.int64),
        np.array(current, np.bool_),
    )


def assemble(visitor: Visitor, past: History, matrix: ItemMatrix, rows: Rows, scores: Scores) -> Floats:
    """The ranker's input for candidates `rows` (n,): float32 (n, 28) as in COLUMNS, NaN for unknown."""
    out = np.empty((len(rows), WIDTH), np.float32)
    shared = [reading.read(visitor.user, visitor) for reading in USER_HISTORY.readings]
    shared += [reading.read(visitor.session, visitor) for reading in SESSION_CONTEXT.readings]
    shared += [reading.read(visitor) for reading in REQUEST]
    out[:, : len(shared)] = shared
    meeting = Meeting(visitor, past, matrix, rows, scores)
    columns = [reading.read(matrix, visitor.now, rows) for reading in READINGS["item"]]
    columns += [reading.read(meeting) for reading in CROSSES]
    for at, column in enumerate(columns, len(shared)):
        out[:, at] = column
    return out
