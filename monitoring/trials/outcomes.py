"""What each visitor of an experiment did since he was first in it, and before: from the logs alone.

Clicks are those that the join credits to the experiment's lists (monitoring/experiment/attribution.py).
Carts, purchases and events are all of the visitor's, whatever brought them: an experiment compares people,
and one who finds more by search because the lists are worse must count. A visitor is the unit that was drawn.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_repo.events import UNCOUNTED, identity
from monitoring.experiment.attribution import Feedback, FeedbackParams
from monitoring.experiment.tail import Exposure
from serving.flags.flag_document import HOLDOUT_KEY, Flag
from serving.release.router import HOLDOUT

Doubles = npt.NDArray[np.float64]
METRICS = {
    "ctr": "clicks per served slot",
    "add_to_cart_rate": "visitors who put something into the cart",
    "conversion": "visitors who bought",
    "revenue_per_visitor": "revenue per visitor",
    "session_length": "events per visit",
}


@dataclass(frozen=True)
class Outcome:
    """Of one metric, each (n,) along the visitors: `top` over `base` is the metric; `before`: `top` of the
    visitor's time before the experiment."""

    top: Doubles
    base: Doubles
    before: Doubles


@dataclass(frozen=True)
class People:
    """The visitors of an experiment. `variant` (n,) counts in `names`, whose first is the control."""

    names: Sequence[str]
    variant: npt.NDArray[np.int64]
    outcomes: Mapping[str, Outcome]
    suspects: int = 0  # who click more than people do are not among them
    crossed: int = 0  # seen in two variants: counted in their first


def of_flag(flag: Flag) -> Callable[[Exposure], str | None]:
    """The variant of a list since the flag was last started."""
    return lambda shown: shown.variants.get(flag.key) if shown.flags >= flag.since else None


def of_holdout(shown: Exposure) -> str | None:
    """The holdout against everybody else: what personalising is worth."""
    return HOLDOUT_KEY if shown.arm == HOLDOUT else "personalised"


def of_all(shown: Exposure) -> str | None:
    """Everybody alike: what a plan is made from."""
    return "everybody"


class Outcomes:
    """Takes in the logs (monitoring/experiment/tail.py); memory grows with them, and they are bounded."""

    def __init__(self, params: FeedbackParams) -> None:
        self._params, self._feedback = params, Feedback(params, journal=True)
        self._events: list[tuple[str | None, str, int, str, float]] = []  # user, visit, arrival, type, worth
        self._seen: set[bytes] = set()
        self.first = self.last = 0  # arrival of an exposure, us

    def update(self, exposures: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
        """Records with `arrived_ts`, us."""
        self._feedback.update(exposures, events)
        for event in events:
            if event.get(UNCOUNTED) or (key := identity(event)) in self._seen:
                continue
            self._seen.add(key)
            worth = (event.get("price") or 0.0) * (event.get("quantity") or 1)
            at = int(event.get("arrived_ts") or event["event_ts"])
            self._events.append(
                (event.get("user_id"), event.get("session_id") or "", at, event["type"], worth)
            )

    def people(self, variant_of: Callable[[Exposure], str | None], names: Sequence[str]) -> People:
        """The visitors of those lists whose variant is one of `names`."""
        told: dict[str, _Visitor] = {}
        crossed: set[str] = set()
        for shown in self._feedback.exposures():
            name = variant_of(shown)
            if shown.unit is None or name not in names:
                continue
            self.first, self.last = self.first or shown.at, max(self.last, shown.at)
            visitor = told.setdefault(shown.unit, _Visitor(names.index(name), shown.at))
            if visitor.variant != names.index(name):
                crossed.add(shown.unit)
                continue
            visitor.slots += len(shown.items)
            visitor.clicks += len(shown.outcomes)
        for user, visit, at, kind, worth in self._events:
            found = told.get(user or "") or told.get(visit)
            if found is not None:
                found.note(visit, at, kind, worth)
        belief = self._params.belief
        suspects = [
            unit
            for unit, one in told.items()
            if one.clicks > max(belief.most_clicks, belief.most_ctr * one.slots)
        ]
        for unit in suspects:
            del told[unit]
        return _gathered(told.values(), names, len(suspects), len(crossed))


class _Visitor:
    __slots__ = ("after", "at", "before", "clicks", "slots", "variant", "visits")

    def __init__(self, variant: int, at: int) -> None:
        self.variant, self.at = variant, at
        self.slots = self.clicks = 0
        self.visits: set[str] = set()
        self.before, self.after = [0.0] * 5, [0.0] * 5  # clicks, carts, purchases, revenue, events

    def note(self, visit: str, at: int, kind: str, worth: float) -> None:
        counts = self.before if at < self.at else self.after
        if at >= self.at:
            self.visits.add(visit)
        counts[4] += 1
        for place, name in enumerate(("click", "add_to_cart", "purchase_completed")):
            counts[place] += kind == name
        counts[3] += worth if kind == "purchase_completed" else 0.0

    def row(self) -> list[float]:
        """top, base and before of each metric."""
        now, then = self.after, self.before
        return [
            *(self.clicks, self.slots, then[0]),
            *(now[1] > 0, 1, then[1] > 0),
            *(now[2] > 0, 1, then[2] > 0),
            *(now[3], 1, then[3]),
            *(now[4], len(self.visits), then[4]),
        ]


def _gathered(visitors: Iterable[_Visitor], names: Sequence[str], suspects: int, crossed: int) -> People:
    kept = list(visitors)
    table = np.array([one.row() for one in kept], float).reshape(-1, 3 * len(METRICS))
    columns = {
        name: Outcome(*(table[:, 3 * at + part] for part in range(3))) for at, name in enumerate(METRICS)
    }
    return People(names, np.array([one.variant for one in kept], np.int64), columns, suspects, crossed)
