"""What flows through the pipeline: a request, candidates, slots, an answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.visitor import Floats, Rows, Scores

Mask = npt.NDArray[np.bool_]


class Filter(NamedTuple):
    """Which rows of the catalogue may stand in a list; nobody asks of all of them.

    of: rows (n,) -> bool (n,)
    within: ascending, all rows that may, and perhaps some that may not, where these are few; None: too many
    """

    of: Callable[[Rows], Mask]
    within: Rows | None = None

    def both(self, other: "Filter") -> "Filter":
        """What either lets stand."""
        parts = [one.within for one in (self, other) if one.within is not None]
        return Filter(lambda rows: self.of(rows) & other.of(rows), min(parts, key=len, default=None))


@dataclass(frozen=True, slots=True)
class Context:
    """Where the storefront asks from; every field may be unknown."""

    device: str | None = None
    country: str | None = None
    channel: str | None = None
    page: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One checked question; serving/http/requests.py makes it from JSON and refuses what does not fit."""

    surface: str
    user_id: str | None = None
    session_id: str | None = None
    items: tuple[str, ...] = ()
    cart: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    context: Context = field(default_factory=Context)
    limit: int = 12
    debug: bool = False
    as_of: int | None = None  # us; honoured only with ENDCAP_REPLAY=1
    user_proof: str | None = None  # that whoever asks is `user_id` (serving/access/credentials.py)
    fields: tuple[str, ...] = ()  # of the catalogue, that each slot carries besides


class VisitorRows(NamedTuple):
    """The stored rows of a shopper and a visit, None where there is none or it is too old.

    The visit's may be another shopper's: pipeline.visitor_of decides what is seen of it.
    """

    user: Mapping[str, Any] | None
    session: Mapping[str, Any] | None
    user_ts: int = 0  # instant of the row, us; 0 without one
    session_ts: int = 0
    charged: int | None = None  # what serving.access.tolls had asked by the way; None: no answer


NO_ROWS = VisitorRows(None, None)


@dataclass(frozen=True, slots=True)
class Candidates:
    """K catalogue rows with where each came from and what retrieval knows of it.

    rows int64 (k,) · source: name of the source that brought each
    """

    rows: Rows
    source: tuple[str, ...]
    scores: Scores


@dataclass(frozen=True, slots=True)
class Ranked:
    """Candidates in descending order of the ranker's score; `matrix` float32 (k, 28) in the same order.

    Where profit or a rule weighs them the order is that of `relevance`, float32 (k,): the score scaled to
    0..1, blended with the profit that is expected, times the rules' factors.
    """

    rows: Rows
    score: Floats
    source: tuple[str, ...]
    matrix: Floats
    relevance: Floats | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """One filled place of the shelf; `slot` counts from 0. `rule`: the shop's rule that put it there."""

    item_id: str
    slot: int
    score: float
    source: str
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the storefront gets; `removed` tells per item why it could not be shown (debug only)."""

    request_id: str
    surface: str
    items: tuple[Slot, ...]
    arm: str
    bundle: str
    served_from: str  # the rung: live, or what serving.cascade.rungs names
    degraded: str | None
    feature_age_ms: int | None
    took_ms: float
    warnings: tuple[str, ...] = ()
    debug: dict[str, Any] | None = None
    products: tuple[dict[str, Any], ...] = ()  # of each slot what Request.fields asks for
    json: bytes = b""  # of `items`, where it is at hand
    flags: tuple[dict[str, Any], ...] = ()  # flag_key, variant, reason, value of each experiment
