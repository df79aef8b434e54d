"""The one assembler: stored rows of user, session and items -> the ranker's 28 columns.

Training and serving both call `assemble`; nothing else may compute a model input. Everything that depends on
`now` happens here, so a stored row may be a second or a week old and gives the same value. The columns are
those that the folds, the catalogue and feature_repo.assemble.crosses declare; there must be 28.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from feature_repo.assemble.crosses import CROSSES, ITEM, STANDINGS, Meeting
from feature_repo.assemble.matrix import ItemMatrix, Rows
from feature_repo.assemble.standing import standing
from feature_repo.assemble.visitor import Floats, History, Scores, Visitor
from feature_repo.errors import DefinitionError
from feature_repo.features.context import device_code
from feature_repo.features.stored import SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds.fold import Reading

REQUEST: tuple[Reading, ...] = (
    Reading("device", "code", "as the request says", (), lambda visitor: device_code(visitor.device)),
)
READINGS: Mapping[str, tuple[Reading, ...]] = {  # class of columns -> its columns
    "user": USER_HISTORY.readings,
    "context": (*SESSION_CONTEXT.readings, *REQUEST),
    "item": ITEM,
    "cross": CROSSES,
    "standing": STANDINGS,
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


def assemble(visitor: Visitor, past: History, matrix: ItemMatrix, rows: Rows, scores: Scores) -> Floats:
    """The ranker's input for candidates `rows` (n,): float32 (n, 28) as in COLUMNS, NaN for unknown."""
    out = np.empty((len(rows), WIDTH), np.float32)
    shared = [reading.read(visitor.user, visitor) for reading in USER_HISTORY.readings]
    shared += [reading.read(visitor.session, visitor) for reading in SESSION_CONTEXT.readings]
    shared += [reading.read(visitor) for reading in REQUEST]
    out[:, : len(shared)] = shared
    meeting = Meeting(visitor, past, matrix, rows, scores)
    for at, column in enumerate(meeting.items.values(), len(shared)):
        out[:, at] = column
    compare(meeting, CROSSES, STANDINGS, out[:, len(shared) + len(ITEM) :])
    return out


def compare(
    meeting: Meeting, crosses: Sequence[Reading], standings: Sequence[Reading], out: Floats
) -> Floats:
    """Fill `out` (n, crosses + standings) by columns of visitor and items; the latter are ranked here."""
    for at, reading in enumerate(crosses):
        out[:, at] = reading.read(meeting)
    raw = np.empty((len(standings), len(meeting.rows)), np.float32)
    for at, reading in enumerate(standings):
        raw[at] = reading.read(meeting)
    out[:, len(crosses) :] = standing(raw).T
    return out
