"""Who asks, with the stored rows as they were read; the contacts that the models see; retrieval's scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.matrix import ItemMatrix, Rows
from feature_repo.events import HISTORY
from feature_repo.features.stored import SESSION_CONTEXT, USER_HISTORY

Floats = npt.NDArray[np.float32]

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

    tower: Floats  # user tower . item tower
    covisit: Floats  # co-visits, summed over the history
    ease: Floats  # EASE, summed over the history
    covisit_last: Floats  # co-visits of the newest contact
    next: Floats  # came directly after the newest contacts
    als: Floats  # the history folded in
    place: Floats  # in the order of retrieval, from 0; NaN for lists that retrieval did not make


def history(visitor: Visitor, matrix: ItemMatrix, limit: int = HISTORY) -> History:
    """Contacts of earlier visits, of this visit and of the request, merged; unknown items are left out.

    An item seen in several places stands once, at its newest contact.
    """
    user, session = visitor.user, visitor.session
    earlier = zip(user["recent_items"], user["recent_ts"], user["recent_kinds"], strict=True)
    contacts = {item: (ts, kind, False) for item, ts, kind in earlier}
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
