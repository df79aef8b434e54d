"""Rows behind a release's own: items that came after its fit, once `endcap embed` has made their vectors."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix, Newborns
from feature_repo.files import chunks
from feature_repo.online import newborns
from serving import prometheus

READ = 500  # vectors per round trip, some 150 kB
Columns = Mapping[str, Sequence[Any]]

log = logging.getLogger(__name__)


class NewbornRows:
    """Of the embedding `space` (serving.release.bundle), `most` at most, those that came first."""

    def __init__(self, redis: Any, space: str, most: int) -> None:
        self._redis, self._space, self._most = redis, space, most
        self._left_out = 0

    def grown(
        self,
        matrix: ItemMatrix,
        items: Sequence[str] | None,
        said: Callable[[Sequence[str], Sequence[int]], Columns],
    ) -> ItemMatrix:
        """A snapshot with the newborns that there are now; itself where none came, changed or went.

        Only `items` may have changed, with None all. `said`: what the catalogue says of items, born at (us).
        """
        n, now = matrix.own, matrix.newborns
        before = matrix.ids[n:]
        if items is None:
            items = [*before, *newborns.names(self._redis, self._space)]
        asked = sorted({item for item in items if matrix.row.get(item, n) >= n})
        found: dict[str, newborns.Newborn] = {}
        for part in chunks(asked, READ):
            found |= newborns.read(self._redis, self._space, part)
        held = dict(zip(before, zip(now.born.tolist(), now.vectors, strict=True), strict=True))
        told = {
            item: (one.born, one.vector)
            for item, one in found.items()
            if item not in held or held[item][0] != one.born or not np.array_equal(held[item][1], one.vector)
        }
        gone = set(asked) - found.keys()
        rows = {item: told.get(item, row) for item, row in held.items() if item not in gone}
        rows |= {item: row for item, row in told.items() if item not in held}  # in the order of their ids
        kept = dict(list(rows.items())[: self._most])
        self._tell(len(kept), len(rows) - len(kept))
        if list(kept) == before and not told.keys() & kept.keys():
            return matrix  # whoever only looked at one has changed no row
        born, vectors = zip(*kept.values(), strict=True) if kept else ((), ())
        return matrix.with_newborns(list(kept), Newborns.of(born, vectors), said(list(kept), born))

    def _tell(self, rows: int, left_out: int) -> None:
        prometheus.NEWBORNS.set(rows)
        prometheus.NEWBORNS_LEFT_OUT.set(left_out)
        if left_out and not self._left_out:
            log.warning(
                "newborns.most: %d new items have no row, more than %d came after the fit. Next: fit and "
                "promote a release that knows them, or raise newborns.most",
                *(left_out, self._most),
            )
        self._left_out = left_out
