"""Online features: two rows per request in one Redis round trip, and the item matrix that is kept up to date.

Feast's rows, read by online.rows as Feast's own client would, several times as fast and without Feast: its
import costs a worker 7 s of a processor. Tests compare both, column by column.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix, Rows
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.stored import ITEM_ACTIVITY, SESSION_CONTEXT, USER_HISTORY
from feature_repo.files import chunks
from feature_repo.online import changes
from feature_repo.online.connection import QUICK_S, beside_requests, wires
from feature_repo.online.rows import OnlineView, read_rows
from serving.live.newborn_rows import NewbornRows
from serving.live.wire import Wire
from serving.release.loaded import Ready, at_once
from serving.types import VisitorRows

LOADED = 500  # items per round trip while a release is loaded
REFRESHED = 40  # items per round trip beside requests: some 0.4 ms of decoding, in which a request waits
PAUSE_S = 0.001  # between two of them
Row = dict[str, Any]
UNTOUCHED: Row = ITEM_ACTIVITY.row(ITEM_ACTIVITY.new())
UNKNOWN: Row = {c.name: None for c in ITEM_CATALOGUE.columns}


class OnlineFeatures:
    """Reads for one catalogue, `ids`, from the Redis at `url`. Errors pass through; nothing is retried.

    See serving.release.loaded.Features.
    """

    matrix: ItemMatrix  # the newest snapshot, which nobody changes once it stands here

    def __init__(self, url: str, ids: Sequence[str], space: str = "", most: int = 0) -> None:
        """Of newborns in the embedding `space` at most `most` get a row."""
        self._ids = list(ids)
        self._user, self._session = OnlineView(USER_HISTORY), OnlineView(SESSION_CONTEXT)
        self._activity = OnlineView(ITEM_ACTIVITY)
        self._catalogue = OnlineView(ITEM_CATALOGUE)
        self._redis = beside_requests(url)
        self._newborns = NewbornRows(self._redis, space, most)
        self._wire = Wire(wires(url), QUICK_S)
        self._seen = changes.Seen(0, 0)
        self._turn = threading.Lock()

    async def read(
        self, user_id: str | None, session_id: str | None, now: int, charge: bytes | None = None
    ) -> VisitorRows:
        """The rows `user_history` and `session_context`, in one round trip.

        None for an id that is None, for one without a row, and for a row that at `now` (us) is older than its
        view allows. `charge` is one more command that goes along.
        """
        pairs = [(self._user, user_id), (self._session, session_id)]
        asked = [(view, entity) for view, entity in pairs if entity is not None]
        commands = [view.hmget(entity) for view, entity in asked]
        commands += [charge] if charge else []
        replies = await self._wire.ask(commands, beside=int(bool(charge))) if commands else []
        found = {view: view.fresh(reply, now) for (view, _), reply in zip(asked, replies, strict=False)}
        user_ts, user = found.get(self._user) or (0, None)
        session_ts, session = found.get(self._session) or (0, None)
        return VisitorRows(user, session, user_ts, session_ts, replies[-1] if charge else None)

    def load_items(self) -> None:
        """`matrix` of every item's catalogue and activity; one without a row is unknown, and untouched."""
        self._seen = changes.seen(self._redis)  # before the read: what changes meanwhile is read again
        matrix = ItemMatrix(self._ids, self._said(self._ids, [None] * len(self._ids), LOADED))
        matrix = self._newborns.grown(matrix, None, self._said)
        self.matrix = self._ready(matrix.updated(*self._changed(matrix, matrix.ids, LOADED)))

    def refresh(self, ready: Ready = at_once) -> int:
        """Put a snapshot with what was announced since the last call in place; how many rows were read.

        It is put there inside `ready`. Reads in small parts with pauses: a request in another thread hardly
        waits. Callers take turns.
        """
        with self._turn:
            seen, items, listings = changes.since(self._redis, self._seen)
            matrix = self._newborns.grown(self.matrix, items, self._said)
            known = matrix.ids if items is None else [item for item in items if item in matrix.row]
            fresh = matrix.updated(*self._changed(matrix, known))
            listed = matrix.ids if listings is None else [item for item in listings if item in matrix.row]
            if listed:
                rows = matrix.rows_of(listed)
                born = np.concatenate([np.zeros(matrix.own, np.int64), matrix.newborns.born])[rows]
                fresh = fresh.listed(rows, self._said(listed, born.tolist()))
            fresh = self._ready(fresh)
            with ready(fresh):
                self.matrix, self._seen = fresh, seen
        return len(known)

    def _said(
        self, items: Sequence[str], born: Sequence[int | None], size: int = REFRESHED
    ) -> dict[str, list[Any]]:
        """What the catalogue says of `items`; without a first day of sale it is when each was `born` (us)."""
        columns: dict[str, list[Any]] = {name: [] for name in UNKNOWN}
        for part in self._held(self._catalogue, items, size):
            rows = [held[1] if held else UNKNOWN for _, held in part]
            for name, column in columns.items():
                column += [row[name] for row in rows]
        opening = zip(columns["available_from"], born, strict=True)
        return columns | {"available_from": [day or at for day, at in opening]}

    def _changed(
        self, matrix: ItemMatrix, items: Sequence[str], size: int = REFRESHED
    ) -> tuple[Rows, dict[str, Any]]:
        """Matrix rows and their new activity; an item whose row was deleted is untouched again.

        Filled in parts: one long conversion would hold up requests.
        """
        rows, filled = np.empty(len(items), np.int64), 0
        values = {name: np.empty(len(items), column.dtype) for name, column in matrix.activity.items()}
        for part in self._held(self._activity, items, size):
            found = [(matrix.row[item], held[1] if held else UNTOUCHED) for item, held in part]
            span = slice(filled, filled + len(found))
            rows[span] = [at for at, _ in found]
            for name, column in values.items():
                column[span] = [row[name] for _, row in found]
            filled = span.stop
        return rows[:filled], {name: column[:filled] for name, column in values.items()}

    def _ready(self, matrix: ItemMatrix) -> ItemMatrix:
        """Without outdated activity, and with what all requests share computed: none has to."""
        fresh = matrix.as_of(changes.applied_ts(self._redis))
        return fresh.warm(getattr(self, "matrix", fresh))

    def _held(
        self, view: OnlineView, items: Sequence[str], size: int
    ) -> Iterator[list[tuple[str, tuple[int, Row] | None]]]:
        """Each item with its stored (ts, row), in small parts with pauses between them."""
        for at, ids in enumerate(chunks(items, size)):
            if at:
                time.sleep(PAUSE_S)
            yield list(zip(ids, read_rows(self._redis, view, ids), strict=True))
