"""Time of an answer and bytes on the disk of a bundle, beside the champion's, in this process.

Both are asked in turn, question by question, and of `ROUNDS` tries the fastest counts. Time is the
processor's: what an answer takes on an idle core, so that a busy machine refuses nobody. A question is made
of the bundle's own catalogue, so nothing else is needed: strangers, and visits of up to twelve views, on
pages of every kind. What HTTP and Redis add is not in it; it is the same for every release.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor
from feature_repo.clock import DAY_US, MINUTE_US
from feature_repo.features.stored import SESSION_CONTEXT
from feature_repo.folds.fold import Event
from pipelines.gates.bar import Check, GateParams
from serving.errors import BundleError
from serving.pipeline import Bundle, recommend, visitor_of
from serving.release import bundle
from serving.types import Request

ROUNDS, VIEWS = 3, 12
SURFACES = ("homepage_hero", "pdp_fbt", "cart_upsell", "similar_items")
_NOW = 1_767_225_600_000_000  # us; no shop's time: ages are what counts
_COLUMNS = ("category_path", "brand", "price", "margin", "stock")


class Desk(NamedTuple):
    """A release with what it is asked."""

    release: Bundle
    matrix: ItemMatrix
    asked: list[tuple[Request, Visitor]]


def costs(candidate: Path, champion: Path | None, params: GateParams) -> tuple[Check, Check]:
    """Latency (ms, p99) and size (MB) of the bundle at `candidate`; told alone where there is no champion."""
    desks, first = [desk(candidate, params.speed_questions)], "no champion to compare with"
    try:
        desks += [desk(champion, params.speed_questions)] if champion else []
    except BundleError:
        champion, first = None, "the champion cannot be loaded"
    took, mb = answered(desks), megabytes(candidate)
    p50, p99 = np.quantile(took[0], (0.5, 0.99)).tolist()
    if not champion:
        alone = Check(
            "latency p99 ms", p99, params.fast_ms, f"{first}; p50 {p50:.2f}", most=True, judged=False
        )
        return alone, Check("size MB", mb, mb, first, most=True, judged=False)
    p50_before, p99_before = np.quantile(took[1], (0.5, 0.99)).tolist()
    limit = max(params.fast_ms, params.max_slowdown * p99_before)
    because = f"champion's {p99_before:.2f} x {params.max_slowdown:g}, or gate.fast_ms"
    because += f"; p50 {p50:.2f}, champion's {p50_before:.2f}"
    step = "quotas and `k` of `retrieve`, trees of `ranker`: fewer candidates and rounds are faster"
    slow = Check("latency p99 ms", p99, limit, because, most=True, step=step)
    mb_before = megabytes(champion)
    because = f"champion's {mb_before:.1f} x {params.max_growth:g}"
    step = "did the catalogue grow as much? then `endcap promote --force --why ...`"
    return slow, Check("size MB", mb, params.max_growth * mb_before, because, most=True, step=step)


def megabytes(path: Path) -> float:
    """10^6 bytes of a bundle's files."""
    return sum(file.stat().st_size for file in path.iterdir()) / 1e6


def answered(desks: Sequence[Desk]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Milliseconds of each question, (releases, questions): the fastest of all tries, taken in turns."""
    took = np.full((len(desks), len(desks[0].asked)), np.inf)
    for _ in range(ROUNDS):
        for question in range(took.shape[1]):
            for side, (release, matrix, asked) in enumerate(desks):
                request, visitor = asked[question]
                began = time.process_time()
                recommend(request, release, visitor, matrix)
                took[side, question] = min(took[side, question], 1000 * (time.process_time() - began))
    return took


def desk(path: Path, questions: int) -> Desk:
    """The bundle at `path` with questions of its own catalogue; equal catalogues are asked the same."""
    release, rng = bundle.load(path), np.random.default_rng(0)
    table = pq.read_table(path / "catalogue.parquet")
    columns: dict[str, Any] = {name: table[name].to_pylist() for name in _COLUMNS}
    n = len(release.models.ids)
    matrix = ItemMatrix(release.models.ids, columns | {"available_from": [_NOW - 90 * DAY_US] * n})
    activity = {name: np.zeros(n, column.dtype) for name, column in matrix.activity.items()}
    activity["at"][:], activity["first_ts"][:] = _NOW - MINUTE_US, _NOW - 60 * DAY_US
    activity["views_7d"][:] = rng.pareto(1.2, n)
    matrix.apply(np.arange(n), activity)
    picked = rng.integers(n, size=(questions, VIEWS))
    asked = [_question(at, [matrix.ids[row] for row in rows]) for at, rows in enumerate(picked.tolist())]
    return Desk(release, matrix.warm(matrix), asked)


def _question(at: int, viewed: Sequence[str]) -> tuple[Request, Visitor]:
    """One stranger, then visits of more and more views, on each surface in turn."""
    surface, session = SURFACES[at % len(SURFACES)], f"S{at}"
    context = SESSION_CONTEXT.new()
    views = viewed[: at // len(SURFACES) % (VIEWS + 1)]
    for step, item in enumerate(views):
        event = Event(_NOW - (VIEWS - step) * MINUTE_US, "product_viewed", None, session, item)
        SESSION_CONTEXT.step(context, event)
    page, cart = ((), tuple(viewed[:2])) if surface == "cart_upsell" else ((viewed[-1],), ())
    request = Request(
        surface, session_id=session, items=page if surface != "homepage_hero" else (), cart=cart
    )
    return request, visitor_of(request, _NOW, None, SESSION_CONTEXT.row(context) if views else None)
