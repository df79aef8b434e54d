"""Why a product was shown to nobody: the stage at which it fell, of all lists that it might have been in.

sold out          not on sale now, or not long enough yet
not in release    in no row of the release that serves: no vector, or more newborns than it takes
blocked           a rule bars it from every list that was looked at
never retrieved   no source brought it
outranked         it was a candidate; how far below the last product shown, in the score's log odds
diversity         its score was high enough, and a filter or the long tail's slot had its place
rule              the same, in a list that rules had changed
shown             it was in a list that was looked at, and in none that was logged since
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.clock import HOUR_US
from serving.pipeline import Served
from serving.rules.compiled import Compiled
from serving.rules.document import Document
from serving.rules.lint import barred
from serving.stages.eligibility import on_sale
from serving.types import Request

CAUSES = (
    "never retrieved",
    "outranked",
    "diversity",
    "rule",
    "shown",
    "blocked",
    "sold out",
    "not in release",
)
COULD_BE_SOLD = CAUSES[:6]  # of the others nobody expects an impression


class List(NamedTuple):
    """One list: its candidates and scores in the order of the ranking, what was shown, whether rules held."""

    request: Request
    now: int
    items: list[str]
    scores: list[float]
    shown: list[str]
    ruled: bool


@dataclass
class Place:
    """The best that a product came to over all lists: its rank by score, from 1, and what it was short of."""

    stage: int = 0  # of CAUSES
    lists: int = 0  # in which it was a candidate
    rank: int | None = None
    gap: float | None = None

    def take(self, stage: int, rank: int, gap: float) -> None:
        self.lists += 1
        self.stage = max(self.stage, stage)
        if self.rank is None or rank < self.rank:
            self.rank, self.gap = rank, gap


def logged(metas: Iterable[Mapping[str, Any]]) -> list[List]:
    """Of entries of `endcap:served`; those that rules cannot be judged by are left out."""
    return [
        List(
            Request(meta["surface"], meta["user_id"], meta["session_id"], limit=meta["judged"]["limit"]),
            meta["ts"],
            meta["items"],
            meta["judged"]["scores"],
            meta["judged"]["shown"],
            bool(meta["judged"]["rules"]),
        )
        for meta in metas
        if "judged" in meta
    ]


def answered(request: Request, now: int, served: Served, matrix: ItemMatrix, ruled: bool) -> List:
    """The release's own answer to a logged question."""
    items = [matrix.ids[row] for row in served.ranked.rows.tolist()]
    shown = [slot.item_id for slot in served.slots]
    return List(request, now, items, served.ranked.score.tolist(), shown, ruled)


def places(lists: Iterable[List], unseen: set[str]) -> dict[str, Place]:
    """How far each of `unseen` came."""
    found = {item: Place() for item in sorted(unseen)}
    for one in lists:
        mine = [item for item in one.items if item in unseen]
        if not mine:
            continue
        score, shown = dict(zip(one.items, one.scores, strict=True)), set(one.shown)
        order = sorted(one.items, key=lambda item: -score[item])
        rank = {item: place for place, item in enumerate(order, 1)}
        last = score[order[min(len(one.shown), len(order)) - 1]]  # what had to be reached
        for item in mine:
            stage = "outranked"
            if item in shown:
                stage = "shown"
            elif rank[item] <= len(one.shown):
                stage = "rule" if one.ruled else "diversity"
            found[item].take(CAUSES.index(stage), rank[item], max(last - score[item], 0.0))
    return found


def blocking(rules: Document, lists: Iterable[List], matrix: ItemMatrix, now: int) -> dict[str, str]:
    """Item -> a rule that bars it, of those that are barred from every list."""
    compiled, always = Compiled(rules, matrix, now), np.ones(len(matrix), np.bool_)
    kinds = Counter(one.request.surface for one in lists)
    for one in lists:
        allowed = compiled.steering(one.request, now).allowed
        always &= np.zeros(len(matrix), np.bool_) if allowed is None else ~allowed
    if not kinds or not always.any():
        return {}
    masks = [(rule.id, barred(rule, matrix, now)) for rule in rules.rules]
    return {
        matrix.ids[row]: next((name for name, mask in masks if mask is not None and mask[row]), "")
        for row in np.flatnonzero(always).tolist()
    }


def cause(
    item: str, matrix: ItemMatrix, blocked: Mapping[str, str], place: Place, now: int, hours: float
) -> tuple[str, str]:
    """(one of CAUSES, in words)."""
    row = matrix.row.get(item)
    if row is None:
        return "not in release", "the release that serves has no row of it"
    if not on_sale(matrix, now, np.array([row]))[0]:
        return "sold out", "no stock" if matrix.stock[row] <= 0 else "its first day of sale is to come"
    if matrix.available_from[row] > now - hours * HOUR_US:
        return "sold out", f"on sale for less than {hours:g} hours"
    if item in blocked:
        return "blocked", f"by rule {blocked[item]}"
    found = CAUSES[place.stage]
    if place.rank is None:
        return found, "no source brought it to any list"
    told = f"best rank {place.rank} in {place.lists} of the lists"
    return found, f"{told}, {place.gap:.2f} short" if found == "outranked" else told
