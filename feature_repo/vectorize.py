"""The one assembler: stored rows of user, session and items -> the ranker's 28 columns.

Training and serving both call `assemble`; nothing else may compute a model input. Everything that depends on
`now` happens here, so a stored row may be a second or a week old and gives the same value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.aggregates import SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds import DAY_US
from feature_repo.matrix import ItemMatrix, Rows
from feature_repo.vocabulary import device_code, surface_code

Floats = npt.NDArray[np.float32]

USER = ("user_views_30d", "user_purchases_180d", "user_days_away", "user_is_known")
CONTEXT = (
    "session_views",
    "session_carts",
    "session_intent",
    "session_age_s",
    "idle_s",
    "session_pages",
    "hour_of_day",
    "device",
    "surface",
)
ITEM = ("price_log", "margin", "age_days", "views_24h", "views_7d", "ctr_7d")
CROSS = (
    "tower_score",
    "covisit_score",
    "ease_score",
    "last_item_score",
    "category_affinity",
    "price_ratio",
    "shown_pages_ago",
    "shown_position",
    "shown_count",
)
COLUMNS = USER + CONTEXT + ITEM + CROSS  # 28, in the order of the matrix
CLASSES = {"user": USER, "context": CONTEXT, "item": ITEM, "cross": CROSS}

CTR_PRIOR_CLICKS, CTR_PRIOR_EXPOSURE = (
    1.0,
    50.0,
)  # a new item starts near 2 % and moves after some 50 exposures
CATEGORY_DECAY = 0.8  # weight of the k-th newest contact's category

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
    out = np.empty((len(rows), len(COLUMNS)), np.float32)
    shared = (*_user(visitor), *_context(visitor))
    out[:, : len(shared)] = shared
    columns = (*_item(visitor.now, matrix, rows), *_cross(visitor, past, matrix, rows, scores))
    for at, column in enumerate(columns, len(shared)):
        out[:, at] = column
    return out


def _user(visitor: Visitor) -> tuple[float, ...]:
    user, now = visitor.user, visitor.now
    age = now - user["at"]
    elsewhere = user["session_id"] != visitor.session_id
    before = user["at"] if elsewhere else user["previous_ts"]
    visits = user["sessions"] if elsewhere else user["sessions"] - 1
    return (
        user["views_30d"] * 2.0 ** (-age / (30 * DAY_US)),
        user["purchases_180d"] * 2.0 ** (-age / (180 * DAY_US)),
        (now - before) / DAY_US if before else np.nan,
        float(visits > 0),
    )


def _context(visitor: Visitor) -> tuple[float, ...]:
    session, now = visitor.session, visitor.now
    return (
        session["views"],
        session["carts"],
        SESSION_CONTEXT.intent.bring(session["intent"], session["at"], now),
        (now - session["started_ts"]) / 1e6 if session["started_ts"] else np.nan,
        (now - session["at"]) / 1e6 if session["at"] else np.nan,
        session["pages"],
        now // 3_600_000_000 % 24,
        device_code(visitor.device),
        surface_code(visitor.surface),
    )


def _item(now: int, matrix: ItemMatrix, rows: Rows) -> tuple[npt.NDArray[Any], ...]:
    first = matrix.available_from[rows]
    first = np.where(first > 0, first, matrix.activity["first_ts"][rows])
    clicks = matrix.count("clicks_7d", now, rows)
    exposure = matrix.count("exposure_7d", now, rows)
    return (
        matrix.price_log[rows],
        matrix.margin[rows],
        np.where(first > 0, (now - first) / DAY_US, np.nan),
        matrix.count("views_24h", now, rows),
        matrix.count("views_7d", now, rows),
        (clicks + CTR_PRIOR_CLICKS) / (exposure + CTR_PRIOR_EXPOSURE),
    )


def _cross(
    visitor: Visitor, past: History, matrix: ItemMatrix, rows: Rows, scores: Scores
) -> tuple[npt.NDArray[Any], ...]:
    recency = CATEGORY_DECAY ** np.arange(len(past.rows))[::-1]  # (h,) newest weighs 1
    same = matrix.category[rows][:, None] == matrix.category[past.rows][None, :]  # (n, h)
    affinity = same @ recency / recency.sum() if len(recency) else np.zeros(len(rows))
    seen = matrix.price_log[past.rows]
    seen = seen[~np.isnan(seen)]
    ratio = matrix.price_log[rows] - seen.mean() if len(seen) else np.full(len(rows), np.nan)
    ago, position, count = _shown(visitor.session, matrix, rows)
    return (
        scores.tower,
        scores.covisit,
        scores.ease,
        scores.last_item,
        affinity,
        ratio,
        ago,
        position,
        count,
    )


def _shown(
    session: Mapping[str, Any], matrix: ItemMatrix, rows: Rows
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Per candidate (n,): pages since it was listed (0 = the newest), its position, how often."""
    ago, position, count = np.full(len(rows), np.nan), np.full(len(rows), np.nan), np.zeros(len(rows))
    lists = (
        session["shown_items"],
        session["shown_pages"],
        session["shown_positions"],
        session["shown_counts"],
    )
    shown = {item: rest for item, *rest in zip(*lists, strict=True)}
    if shown:
        for i, row in enumerate(rows.tolist()):
            if found := shown.get(matrix.ids[row]):
                ago[i], position[i], count[i] = session["pages"] - found[0], found[1] or np.nan, found[2]
    return ago, position, count
