"""Items that are born while a shop is replayed, as `endcap embed` and a worker have them, but offline.

What was said of an item before an instant gives its row, the release's own item tower its vector; rows behind
the release's own are in the order in which a worker appends them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from feature_repo.assemble.matrix import ACTIVITY, ItemMatrix, Newborns
from feature_repo.features.words import Words, deleted, tell
from feature_repo.offline import item_log
from feature_repo.offline.item_log import Statement
from feature_repo.offline.timeline import ItemTimeline
from feature_repo.params import load
from feature_repo.places import ITEM_LOG, at
from pipelines.newborn.embed import open_texts
from pipelines.newborn.item_tower import ItemTower
from pipelines.newborn.newcomers import Found, vectors_of
from training.two_tower.text import TextParams


class Births:
    """The newborns of one release, moved forward in time; `told`: what was said of each, in order of time."""

    def __init__(self, tower: ItemTower, told: Mapping[str, Sequence[Statement]], start: int) -> None:
        self._tower = tower
        self._told = {item: list(said) for item, said in told.items() if item not in tower.ids}
        self._words: dict[str, Words] = {item: {} for item in self._told}
        self._held: dict[str, tuple[int, Mapping[str, Any], Any]] = {}  # born (us), row, vector
        self._texts = open_texts() if self._told and tower.encoder else None
        self._batch = load("text", TextParams).batch
        self._activity = ItemTimeline.at(sorted(self._told), start) if self._told else None

    @classmethod
    def of(cls, bundle: Path, start: int) -> Self:
        """Of the release at `bundle`, from `start` (us) on, by the offline log."""
        told = {item: item_log.dated(said) for item, said in item_log.read(at(ITEM_LOG)).items()}
        return cls(ItemTower.load(bundle), told, start)

    def joined(self, matrix: ItemMatrix, now: int) -> ItemMatrix:
        """`matrix` of the release's items with the rows of those that there are just before `now` (us)."""
        if self._activity is None:
            return matrix
        self._activity.advance(now - 1)
        found = self._found(now)
        if not found:
            return matrix
        rows = [one.row for one in found]
        columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in rows[0]}
        born = [self._held[one.item][0] for one in found]
        columns["available_from"] = [
            day or ts for day, ts in zip(columns["available_from"], born, strict=True)
        ]
        vectors = Newborns.of(born, [self._held[one.item][2] for one in found])
        grown = matrix.with_newborns([one.item for one in found], vectors, columns)
        touched = self._activity.matrix
        behind = touched.rows_of(grown.ids[grown.own :])
        own = np.arange(grown.own, len(grown))
        return grown.updated(own, {name: touched.activity[name][behind] for name in ACTIVITY})

    def _found(self, now: int) -> list[Found]:
        """Those that are in the catalogue, in the order of their rows, each with a vector of what it is."""
        there: dict[str, Found] = {}
        for item, said in self._told.items():
            words = self._words[item]
            while said and said[0].ts < now:
                tell(words, said[0].ts, said.pop(0).fields)
            if words and not deleted(words):
                there[item] = Found.of(item, words)
        for item in [item for item in self._held if item not in there]:
            del self._held[item]
        for item in sorted(there):
            born, row, vector = self._held.get(item, (there[item].ts, None, None))
            if row != there[item].row:
                (vector,) = vectors_of(self._tower, [there[item]], self._texts, self._batch)
            self._held[item] = born, there[item].row, vector
        return [there[item] for item in self._held]
