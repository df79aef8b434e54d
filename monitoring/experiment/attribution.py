"""What became of what was shown: exposures joined to clicks, carts and purchases, as the streams arrive.

A click belongs to the exposure with its request_id, if that exposure held the item and is at most
`click_window_s` old. A cart or purchase belongs to the latest such click on the item by the same session, or
else by the same user, at most `order_window_s` before. There is no other attribution: what cannot be joined
is not counted.

All windows are in event time. An event that finds nothing is kept for `lateness_s`, for the two streams
arrive independently. Every slot served counts as an impression: what the shopper looked at is not known.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import add
from typing import Any, Self

from feature_repo.clock import DAY_US, SECOND_US
from feature_repo.events import identity
from monitoring.experiment.sequential import ArmStatistics

COUNTED = ("click", "add_to_cart", "purchase_completed")


@dataclass(frozen=True)
class FeedbackParams:
    """Section `feedback` of params.yaml."""

    click_window_s: float
    order_window_s: float
    lateness_s: float


@dataclass
class Outcome:
    """What happened to one clicked slot; times in microseconds UTC, None = not yet."""

    clicked_us: int
    carted_us: int | None = None
    purchased_us: int | None = None
    revenue: float = 0.0


@dataclass(frozen=True)
class Exposure:
    """One list as served. `outcomes` holds the clicked items only."""

    request_id: str
    ts: int
    unit: str | None  # whom the router assigned; None: nobody, so not part of the experiment
    user_id: str | None
    session_id: str | None
    arm: str
    bundle: str
    surface: str
    items: tuple[str, ...]
    outcomes: dict[str, Outcome] = field(default_factory=dict, compare=False)

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Self:
        """From a record of the stream `endcap:exposures`; fields that the join does not need are ignored."""
        needed = {name: record[name] for name in ("request_id", "arm", "surface")}
        optional: dict[str, Any] = {name: record.get(name) for name in ("unit", "user_id", "session_id")}
        bundle, items = record.get("bundle") or "", tuple(record["items"])
        return cls(ts=int(record["ts"]), bundle=bundle, items=items, **needed, **optional)

    @property
    def day(self) -> int:
        """Days since 1970-01-01 UTC."""
        return self.ts // DAY_US

    @property
    def person(self) -> tuple[str, str, int, str]:
        """Who counts as one visitor: arm, surface, day, unit; each list to nobody is a visitor of its own."""
        return self.arm, self.surface, self.day, self.unit or self.request_id


@dataclass
class SlotCounts:
    """Counts of one (arm, surface, day). A visitor is a unit with an exposure there."""

    exposures: int = 0
    impressions: int = 0
    visitors: int = 0
    clicks: int = 0
    carts: int = 0
    purchases: int = 0
    buyers: int = 0
    revenue: float = 0.0

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(add, vars(self).values(), vars(other).values()))

    def rates(self) -> dict[str, float | None]:
        """CTR per served slot; carts, conversion (buyers) and revenue per visitor; None without a visitor."""
        people = self.visitors
        return {
            "ctr": self.clicks / self.impressions if self.impressions else None,
            "add_to_cart_rate": self.carts / people if people else None,
            "conversion": self.buyers / people if people else None,
            "revenue_per_visitor": self.revenue / people if people else None,
        }


class Feedback:
    """The join, fed by `update` in any batches. Statistics per arm: monitoring/experiment/sequential.py.

    With `journal` every exposure is kept for `exposures()`; without, memory holds the open windows and one
    entry per shopper.
    """

    def __init__(self, params: FeedbackParams, *, journal: bool = False) -> None:
        self._click_window = int(params.click_window_s * SECOND_US)
        self._order_window = int(params.order_window_s * SECOND_US)
        self._lateness = int(params.lateness_s * SECOND_US)
        self._journal: list[Exposure] | None = [] if journal else None
        self._open: dict[str, Exposure] = {}  # by request_id, until the click window closes
        self._clicks: dict[tuple[str, str, str], list[Exposure]] = defaultdict(list)  # oldest first
        self._seen: dict[bytes, int] = {}  # identity of an event -> its time
        self._waiting: dict[bytes, Mapping[str, Any]] = {}  # events that found nothing yet, by identity
        self._shoppers: dict[tuple[str, str], ArmStatistics] = defaultdict(ArmStatistics)  # by arm, unit
        self._user_days: set[tuple[str, str, int]] = set()  # arm, unit, day
        self._statistics: dict[str, ArmStatistics] = defaultdict(ArmStatistics)
        self._tallies: dict[tuple[str, str, int], SlotCounts] = defaultdict(SlotCounts)
        self._people: dict[tuple[str, str, int, str], bool] = {}  # arm, surface, day, unit -> has bought
        self._forgot_at = 0
        self.first = 0  # time of the first exposure taken in, microseconds; 0 before it
        self.watermark = 0  # time of the newest

    def update(self, exposures: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]]) -> None:
        """Take in what arrived since the last call; a repeated request_id or event changes nothing."""
        for record in exposures:
            self._show(Exposure.parse(record))
        for event in events:
            if event["type"] in COUNTED and event.get("item_id"):
                key = identity(event)
                if key not in self._seen:
                    self._waiting[key] = event
        in_order = sorted(self._waiting.items(), key=lambda one: (one[1]["event_ts"], one[1]["event_id"]))
        for key, event in in_order:
            if self._click(event) if event["type"] == "click" else self._order(event):
                self._seen[key] = event["event_ts"]
                del self._waiting[key]
        self._forget()

    def statistics(self, arm: str) -> ArmStatistics:
        """Sums over the arm's shoppers so far; exposures to nobody (unit None) are not in them."""
        return self._statistics[arm]

    def tallies(self) -> dict[tuple[str, str, int], SlotCounts]:
        """By (arm, surface, days since 1970)."""
        return dict(self._tallies)

    def exposures(self) -> Iterator[Exposure]:
        """All exposures with their outcomes, in order of arrival; needs `journal`."""
        if self._journal is None:
            raise ValueError("exposures() needs Feedback(..., journal=True)")
        return iter(self._journal)

    def _show(self, exposure: Exposure) -> None:
        if exposure.request_id in self._open or not exposure.items:
            return
        self._open[exposure.request_id] = exposure
        if self._journal is not None:
            self._journal.append(exposure)
        self.first = self.first or exposure.ts
        self.watermark = max(self.watermark, exposure.ts)
        self._count(exposure, clicks=0, impressions=len(exposure.items))
        tally = self._tally(exposure)
        tally.exposures += 1
        tally.impressions += len(exposure.items)
        if exposure.person not in self._people:
            self._people[exposure.person] = False
            tally.visitors += 1

    def _click(self, event: Mapping[str, Any]) -> bool:
        exposure = self._open.get(event.get("request_id") or "")
        item = event["item_id"]
        if exposure is None or item not in exposure.items:
            return False
        # The request_id proves the order; a shopper's clock may still be a little behind the server's.
        if not -self._lateness <= event["event_ts"] - exposure.ts <= self._click_window:
            return False
        if item in exposure.outcomes:
            return True
        exposure.outcomes[item] = Outcome(event["event_ts"])
        for key in _people_of(event):
            self._clicks[(*key, item)].append(exposure)
        self._count(exposure, clicks=1, impressions=0)
        self._tally(exposure).clicks += 1
        return True

    def _order(self, event: Mapping[str, Any]) -> bool:
        exposure = self._clicked_before(event)
        if exposure is None:
            return False
        outcome, tally = exposure.outcomes[event["item_id"]], self._tally(exposure)
        if event["type"] == "add_to_cart":
            tally.carts += outcome.carted_us is None
            outcome.carted_us = outcome.carted_us or event["event_ts"]
            return True
        tally.purchases += outcome.purchased_us is None
        outcome.purchased_us = outcome.purchased_us or event["event_ts"]
        revenue = (event.get("price") or 0.0) * (event.get("quantity") or 1)
        outcome.revenue += revenue
        tally.revenue += revenue
        tally.buyers += not self._people.get(exposure.person, True)
        self._people[exposure.person] = True
        return True

    def _clicked_before(self, event: Mapping[str, Any]) -> Exposure | None:
        """The exposure of the latest click on the item, at most the order window before the event."""
        item, us = event["item_id"], event["event_ts"]
        for key in _people_of(event):
            candidates = [
                exposure
                for exposure in self._clicks.get((*key, item), ())
                if 0 <= us - exposure.outcomes[item].clicked_us <= self._order_window
            ]
            if candidates:
                return max(candidates, key=lambda e: e.outcomes[item].clicked_us)
        return None

    def _count(self, exposure: Exposure, clicks: int, impressions: int) -> None:
        """Move the shopper's totals on; the arm's sums follow by the difference."""
        if exposure.unit is None:
            return
        day = (exposure.arm, exposure.unit, exposure.day)
        new_day = day not in self._user_days
        self._user_days.add(day)
        before = self._shoppers[exposure.arm, exposure.unit]
        after = ArmStatistics.of(
            before.clicks + clicks, before.impressions + impressions, before.user_days + new_day
        )
        self._shoppers[exposure.arm, exposure.unit] = after
        self._statistics[exposure.arm] += after - before

    def _tally(self, exposure: Exposure) -> SlotCounts:
        return self._tallies[exposure.arm, exposure.surface, exposure.day]

    def _forget(self) -> None:
        """Drop what no event can reach any more; not at every call, for it walks over everything."""
        if self.watermark < self._forgot_at + self._lateness:
            return
        self._forgot_at = self.watermark
        clicks_from = self.watermark - self._click_window - self._lateness
        orders_from = self.watermark - self._click_window - self._order_window - self._lateness
        _drop(self._open, lambda _, exposure: exposure.ts < clicks_from)
        _drop(self._seen, lambda _, us: us < orders_from)
        _drop(self._waiting, lambda _, event: event["event_ts"] < self.watermark - self._lateness)
        _drop(self._clicks, lambda _, kept: kept[-1].ts < orders_from)
        closed = orders_from // DAY_US  # days before this one can change no more
        self._user_days = {key for key in self._user_days if key[2] >= closed}
        _drop(self._people, lambda key, _: key[2] < closed)


def _drop(kept: dict[Any, Any], stale: Callable[[Any, Any], bool]) -> None:
    for key in [key for key, value in kept.items() if stale(key, value)]:
        del kept[key]


def _people_of(event: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Whose click it may be: the session first, for a shopper may log in between a click and a purchase."""
    names = (("session", event.get("session_id")), ("user", event.get("user_id")))
    return [(kind, name) for kind, name in names if name]
