"""Lists of logged answers made again: of their candidates, under other rules or another weight of the margin.

No draw of the long tail takes part, and what the rules of that time had barred is in no log.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.matrix import ItemMatrix
from monitoring.fitting.showroom import Showroom
from serving.live.exposures import decode
from serving.stages.diversify import Diversify
from serving.stages.odds import BY_RELEVANCE, Chances, Profit
from serving.stages.shelf import AS_RANKED, shelved
from serving.stages.steering import PINNED, Steering, weighed
from serving.types import Context, Filter, Floats, Ranked, Request


class Answers:
    """The logged answers of the release in the room, as often as they are gone through."""

    def __init__(self, entries: Iterable[Any], room: Showroom) -> None:
        self.others: Counter[str] = Counter()
        found = list(decode(entries, self.others))
        digest = room.bundle.digest  # what another release scored says nothing of the lists of this one
        self.judged = [(m, features) for m, features in found if "judged" in m and m["bundle"] == digest]
        self.unusable = len(found) - len(self.judged) + sum(self.others.values())
        self._room = room

    def __iter__(self) -> Iterator["Answer"]:
        for meta, features in self.judged:
            crafted = self._room.bundle.surfaces.of(meta["surface"]) is not None
            yield Answer(meta, features, self._room.matrix, crafted)


class Answer:
    """One logged answer: its question, and its candidates as the ranker ordered them.

    A `crafted` surface laid them out by its own filters, which hold on in the order of the log, with the
    margin's weight as it served; what a factor asks for moves along that order.
    """

    def __init__(
        self, meta: Mapping[str, Any], features: Floats, matrix: ItemMatrix, crafted: bool = False
    ) -> None:
        judged = meta["judged"]
        self.now, self.shown, self._matrix = meta["ts"], judged["shown"], matrix
        self.request_id: str = meta["request_id"]
        context = Context(**judged["context"])
        self.request = Request(
            meta["surface"], meta["user_id"], meta["session_id"], context=context, limit=judged["limit"]
        )
        scores = np.array(judged["scores"], np.float32)
        kept = [
            at
            for at, (item, source) in enumerate(zip(meta["items"], judged["sources"], strict=True))
            if item in matrix.row and source != PINNED
        ]
        order = np.array(kept, np.int64)
        self.crafted = crafted
        if not crafted:
            order = order[np.argsort(-scores[kept], kind="stable")]
        rows = matrix.rows_of([meta["items"][at] for at in order])
        source = tuple(judged["sources"][at] for at in order)
        self._ranked = Ranked(rows, scores[order], source, features[order]) if kept else None
        self._score = dict(zip(rows.tolist(), scores[order].tolist(), strict=True))
        self._may = (matrix.available_from <= self.now) & ~(matrix.stock <= 0)
        self._may[matrix.rows_of(judged["barred"])] = False

    def chances(self, chances: Chances, items: list[str]) -> npt.NDArray[np.float64]:
        """Of a click, of each of these items in its slot; an item of no row has the lowest score as well."""
        lowest, row = min(self._score.values(), default=0.0), self._matrix.row
        score = np.array([self._score.get(row.get(item, -1), lowest) for item in items], np.float32)
        return chances.of(self.request.surface, score, np.arange(1, len(items) + 1))

    def expected(self, chances: Chances, items: list[str]) -> tuple[float, float]:
        """Clicks, and clicks times margin, that these items would get in these slots.

        What a pin alone brings has the lowest score of the candidates; an unknown margin is that of the mean.
        """
        if not items or not self._score:
            return 0.0, 0.0
        clicks, margin = self.chances(chances, items), self._matrix.margin[self._matrix.rows_of(items)]
        known = margin[~np.isnan(margin)]
        margin = np.where(np.isnan(margin), known.mean() if len(known) else np.nan, margin)
        return float(clicks.sum()), float((clicks * margin).sum())

    def list(self, diversity: Diversify, steering: Steering, profit: Profit = BY_RELEVANCE) -> list[str]:
        """The items that these rules show, first slot first."""
        if self._ranked is None:
            return []
        matrix, ranked, limit = self._matrix, self._ranked, self.request.limit
        may = self._may if steering.allowed is None else self._may & steering.allowed
        filtered = Filter(lambda asked: may[asked])
        pins = steering.pinned(filtered, limit)
        more = [pin.row for pin in pins if pin.row not in set(ranked.rows.tolist())]
        kept = may[ranked.rows]
        rows = np.concatenate([ranked.rows[kept], np.array(more, np.int64)])
        score = np.concatenate([ranked.score[kept], np.full(len(more), ranked.score.min(), np.float32)])
        source = tuple(s for s, k in zip(ranked.source, kept, strict=True) if k) + (PINNED,) * len(more)
        values = np.zeros((len(rows), 0), np.float32)
        relevance = np.linspace(1, 0, len(rows), dtype=np.float32) if self.crafted else None
        diversity = AS_RANKED if self.crafted else diversity
        found = Ranked(rows, score, source, values, relevance)
        if not self.crafted:
            found = profit.weigh(found, matrix, self.request.surface)
        candidates = weighed(found, steering.factor)
        laid = shelved(diversity, candidates, matrix, limit, None, (filtered,), steering, pins)
        return [slot.item_id for slot in laid.slots]
