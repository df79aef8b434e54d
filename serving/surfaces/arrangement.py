"""A surface's candidates and its list: filters hold as long as the catalogue lets them, no slot is empty."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from serving.stages.retrieve import Sources
from serving.stages.steering import PINNED
from serving.surfaces.anchored import Anchored
from serving.surfaces.craft import ANCHORED
from serving.tracing import Brought, Trace
from serving.types import Candidates, Filter, Mask, Ranked, Rows

MORE = 8  # times the slots: the best of these fill most lists, and sorting a whole catalogue is slow
DAMPING = 60  # of reciprocal rank fusion (Cormack, Clarke, Buettcher, SIGIR 2009)


def gather(
    question: Anchored,
    shopper: Sources,
    k: int,
    limit: int,
    pinned: Sequence[int] = (),
    trace: Trace | None = None,
) -> Candidates:
    """Distinct rows and the source that brought each, in the surface's own order: the best `k`, and as many
    more as a list of `limit` needs; then what is `pinned`.

    The own order is a reciprocal rank fusion in which a source weighs like its quota. Where what the sources
    bring cannot fill the list, `content` (of the same kind) or `bestsellers` bring more, as one filter of
    `relax` after the other gives way.
    `shopper`: the sources that start from the shopper, among what `question.allowed[0]` lets stand.
    """
    quotas, strict = question.craft.quotas, question.allowed[0]
    parts = []
    for source, quota in quotas.items():
        best = question.best(source, strict, quota) if source in ANCHORED else shopper.best(source)[:quota]
        parts.append(np.asarray(best, np.int64))
        if trace is not None:
            own = partial(_best, question, source, strict)
            deeper = own if source in ANCHORED else partial(shopper.deeper, source)
            trace.brought.append(Brought(source, quota, parts[-1].tolist(), deeper))
    rows = np.concatenate(parts)
    weight = np.concatenate(
        [n / (DAMPING + np.arange(len(p))) for n, p in zip(quotas.values(), parts, strict=True)]
    )
    brought = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    rows, first, place = np.unique(rows, return_index=True, return_inverse=True)
    order = np.argsort(-np.bincount(place, weight, len(rows)), kind="stable")[:k]
    names = list(quotas)
    ordered, source_of = rows[order], [names[at] for at in brought[first[order]].tolist()]
    filler = "content" if question.craft.kind == "same" else "bestsellers"
    for level, most in _steps(len(question.allowed), MORE * limit, len(question.matrix)):
        standing = _standing(question, ordered, level, question.allowed[level].of(ordered))
        if len(standing) >= limit:
            break
        more = question.best(filler, question.wanting(ordered[standing], level), most)
        there = set(ordered.tolist())
        new = np.array([row for row in more.tolist() if row not in there], np.int64)
        if trace is not None:
            deeper = partial(_best, question, filler, question.allowed[level])
            trace.brought.append(Brought(filler, limit, more.tolist(), deeper))
        every = np.concatenate([ordered, new])
        standing = _standing(question, every, level, question.allowed[level].of(every))[:limit]
        ordered = np.concatenate([ordered, every[standing[standing >= len(ordered)]]])
        source_of += [filler] * (len(ordered) - len(source_of))
    pins = [row for row in pinned if row not in set(ordered.tolist())]
    rows = np.concatenate([ordered, np.array(pins, np.int64)])
    brought_by = (*source_of, *[PINNED] * len(pins))
    return Candidates(rows, brought_by, shopper.scores.of(rows, np.arange(len(rows))))


def _steps(levels: int, first: int, items: int) -> Iterator[tuple[int, int]]:
    """Of every level how many rows are looked at: `first`, then MORE times as many, up to all."""
    for level in range(levels):
        most = first
        while True:
            yield level, min(most, items)
            if most >= items:
                break
            most *= MORE


def _best(question: Anchored, source: str, may: Filter, most: int) -> list[int]:
    rows: list[int] = question.best(source, may, most).tolist()
    return rows


def arranged(question: Anchored, ranked: Ranked) -> Ranked:
    """The ranking in the order in which the surface would fill its slots."""
    places = np.array(lay(question, ranked, len(ranked.rows)), np.int64)
    relevance = None if ranked.relevance is None else ranked.relevance[places]
    source = tuple(ranked.source[place] for place in places.tolist())
    return Ranked(ranked.rows[places], ranked.score[places], source, ranked.matrix[places], relevance)


def lay(question: Anchored, ranked: Ranked, limit: int) -> list[int]:
    """Positions in the ranking, in the order of the slots: the best that every filter lets stand, then the
    best that stand as one filter of `relax` after the other gives way.
    """
    chosen: list[int] = []
    allowed = question.standing(ranked.rows)
    for level in range(len(question.craft.relax) + 1):
        left = np.ones(len(ranked.rows), np.bool_)
        left[chosen] = False
        first = np.array([*chosen, *np.flatnonzero(left).tolist()], np.int64)
        standing = _standing(question, ranked.rows[first], level, allowed[level][first], len(chosen))
        chosen = first[standing][:limit].tolist()
        if len(chosen) == limit:
            break
    return chosen


def _standing(
    question: Anchored, rows: Rows, level: int, allowed: Mask, settled: int = 0
) -> npt.NDArray[np.int64]:
    """Places in `rows`, ascending, that may stand in one list; the first `settled` do in any case.

    `allowed`: those that the filters of `level` let stand, bool (n,).
    """
    allowed[:settled] = True
    places = np.flatnonzero(allowed)
    if most := question.per_kind(level):
        kinds = question.matrix.category[rows[places]]
        first = np.lexsort((places, kinds))
        ordered = kinds[first]
        nth = np.empty(len(first), np.int64)
        nth[first] = np.arange(len(first)) - np.searchsorted(ordered, ordered)
        places = places[(nth < most) | (kinds == 0) | (places < settled)]
    return places
