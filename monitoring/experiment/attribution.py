"""What became of what was shown: exposures joined to clicks, carts and purchases, as the streams arrive.

A click belongs to the exposure with its request_id, if that exposure held the item, was made for the session
or the user that clicks, and is at most `click_window_s` old. A cart or purchase belongs to the latest such
click on the item by the same session, or else by the same user, at most `order_window_s` before. There is no
other attribution: what cannot be joined is not counted.

All windows run on arrival, the clock of the log that never goes back (`arrived_ts`, us; without it on what
the record says): clocks of shoppers and services may jump. An event that finds nothing is kept
for `lateness_s`, for the two streams arrive independently. Every slot served counts as an impression: what
the shopper looked at is not known.
"""

from bisect import bisect_left, bisect_right, insort, insort_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from operator import itemgetter
from typing import Any

from feature_repo.clock import DAY_US, SECOND_US
from feature_repo.events import UNCOUNTED, identity
from monitoring.experiment.sequential import ArmStatistics
from monitoring.experiment.tail import Exposure, Outcome
from monitoring.experiment.visitors import Belief, Crowd, Seen, SlotCounts, Visitors, drop

COUNTED = ("click", "add_to_cart", "purchase_completed")
Key = tuple[str, ...]  # of a list: its request_id; of a shopper's item: kind and name of the shopper, item
Turn = tuple[int, int, str, bytes]  # arrival and own time of an event, its id, its identity


@dataclass(frozen=True)
class FeedbackParams:
    """Section `feedback` of params.yaml."""

    click_window_s: float
    order_window_s: float
    lateness_s: float
    most_open: int
    most_waiting: int
    belief: Belief


class Feedback:
    """The join, fed by `update` in any batches. Statistics per arm: monitoring/experiment/sequential.py.

    With `version` only the exposures of that version of the rollout count. With `journal` every exposure is
    kept for `exposures()`; without, memory holds the open windows and one entry per shopper, with bounds.
    """

    def __init__(self, params: FeedbackParams, *, version: int | None = None, journal: bool = False) -> None:
        self._params, self._version = params, version
        self._click_window = int(params.click_window_s * SECOND_US)
        self._order_window = int(params.order_window_s * SECOND_US)
        self._lateness = int(params.lateness_s * SECOND_US)
        self._journal: list[Exposure] | None = [] if journal else None
        self._open: dict[str, Exposure] = {}  # by request_id, until the click window closes
        # Person and item -> when it clicked (arrival, its own clock) on which list, the oldest first.
        self._clicks: dict[Key, list[tuple[tuple[int, int], Exposure]]] = defaultdict(list)
        self._seen: dict[bytes, int] = {}  # identity of an event -> its time
        self._waiting: dict[bytes, Mapping[str, Any]] = {}  # events that found nothing yet, by identity
        self._wanting: dict[Key, list[Turn]] = defaultdict(list)  # by what they wait for, the oldest first
        self._visitors = Visitors(params.belief)
        self._tallies: dict[tuple[str, str, int], SlotCounts] = defaultdict(SlotCounts)
        self._people: dict[tuple[str, str, int, str], Seen] = {}  # by arm, surface, day, unit
        self._forgot_at = self._now = 0  # arrival
        self.first = 0  # time of the first exposure taken in, microseconds; 0 before it
        self.watermark = 0  # the latest time of one

    def update(self, exposures: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]]) -> None:
        """Take in what arrived since the last call; a repeated request_id or event changes nothing."""
        due: list[Turn] = []  # a heap: whoever has a chance now, by arrival
        for record in exposures:
            if self._version in (None, record.get("version")):
                self._show(shown := Exposure.parse(record))
                due += self._wanting.pop((shown.request_id,), ())
            elif record.get("unit"):
                self._visitors.seen_earlier(record["unit"])
        for event in (one for one in events if not one.get(UNCOUNTED)):  # what the door found no evidence
            for _, name in _people_of(event):
                self._visitors.visit(name)
            counted = event["type"] in COUNTED and event.get("item_id")
            if counted and (key := identity(event)) not in self._seen:
                self._waiting[key] = event
                due.append(_turn(key, event))
        heapify(due)
        while due:
            *_, key = heappop(due)
            if (waiting := self._waiting.get(key)) is None:
                continue
            if self._click(waiting, due) if waiting["type"] == "click" else self._order(waiting):
                self._seen[key] = _at(waiting)
                del self._waiting[key]
            else:
                self._want(key, waiting)
        self._forget()

    def _want(self, key: bytes, event: Mapping[str, Any]) -> None:
        """Note what the event waits for."""
        for wanted in _wants(event):
            insort(self._wanting[wanted], _turn(key, event))

    def statistics(self, arm: str) -> ArmStatistics:
        """Sums over the arm's shoppers so far; exposures to nobody (unit None) are not in them."""
        return self._visitors.statistics(arm)

    def crowd(self, arm: str) -> Crowd:
        """Who these shoppers are."""
        return self._visitors.crowd(arm)

    def tallies(self) -> dict[tuple[str, str, int], SlotCounts]:
        """By (arm, surface, days since 1970)."""
        return dict(self._tallies)

    def exposures(self) -> Iterator[Exposure]:
        """All exposures with their outcomes, in order of arrival; needs `journal`."""
        if self._journal is None:
            raise ValueError("exposures() needs Feedback(..., journal=True)")
        return iter(self._journal)

    def keep(self, newest: int) -> None:
        """Only so many exposures stay in the journal."""
        if self._journal is not None:
            del self._journal[: max(0, len(self._journal) - newest)]

    def _show(self, exposure: Exposure) -> None:
        if exposure.request_id in self._open:
            return
        if exposure.unit is not None:  # an empty list, too, tells a shopper the arm
            self._visitors.show(exposure.arm, exposure.unit, exposure.day, len(exposure.items))
        if not exposure.items:
            return
        self._open[exposure.request_id] = exposure
        if self._journal is not None:
            self._journal.append(exposure)
        self.first = self.first or exposure.ts
        self.watermark = max(self.watermark, exposure.ts)
        self._now = max(self._now, exposure.at)
        tally = self._tally(exposure)
        tally.exposures += 1
        seen = self._people.get(exposure.person)
        if seen is None:
            seen = self._people[exposure.person] = Seen()
            tally.visitors += 1
        tally.see(seen, impressions=len(exposure.items))

    def _click(self, event: Mapping[str, Any], due: list[Turn]) -> bool:
        """Whether the click found its list; orders that waited for it become due."""
        exposure = self._open.get(event.get("request_id") or "")
        item = event["item_id"]
        if exposure is None or item not in exposure.items or not exposure.made_for(event):
            return False
        # The request_id proves the order; an exposure may still be logged a little later than its click.
        if not -self._lateness <= _at(event) - exposure.at <= self._click_window:
            return False
        if item in exposure.outcomes:
            return True
        exposure.outcomes[item] = Outcome(event["event_ts"], _at(event))
        when = _at(event), event["event_ts"]
        for person in _people_of(event):
            insort_left(self._clicks[(*person, item)], (when, exposure), key=itemgetter(0))
            waiting = self._wanting.get((*person, item), [])
            begin = bisect_left(waiting, when)  # those before it wait for another
            for order in waiting[begin:]:
                heappush(due, order)
            del waiting[begin:]
        if exposure.unit is not None:
            self._visitors.click(exposure.arm, exposure.unit)
        self._tally(exposure).see(self._people.get(exposure.person) or Seen(), clicks=1)
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
        seen = self._people.setdefault(exposure.person, Seen(bought=True))
        tally.buyers += not seen.bought
        seen.bought = True
        return True

    def _clicked_before(self, event: Mapping[str, Any]) -> Exposure | None:
        """The exposure of the latest click on the item, at most the order window before the event."""
        ordered = _at(event), event["event_ts"]  # the shopper's clock tells apart what arrived together
        for wanted in _wants(event):
            clicks = self._clicks.get(wanted, [])
            if before := bisect_right(clicks, ordered, key=itemgetter(0)):
                (clicked, _), exposure = clicks[before - 1]
                if ordered[0] - clicked <= self._order_window:
                    return exposure
        return None

    def _tally(self, exposure: Exposure) -> SlotCounts:
        return self._tallies[exposure.arm, exposure.surface, exposure.day]

    def _forget(self) -> None:
        """Drop what no event can reach any more; not at every call, for it walks over everything."""
        most_open, most_waiting = self._params.most_open, self._params.most_waiting
        # More than a quarter over a bound: what is over is dropped in one go.
        crowded = len(self._open) > 1.25 * most_open or len(self._waiting) > 1.25 * most_waiting
        if self._now < self._forgot_at + self._lateness and not crowded:
            return
        self._forgot_at = self._now
        clicks_from = self._now - self._click_window - self._lateness
        orders_from = clicks_from - self._order_window
        drop(self._open, lambda _, exposure: exposure.at < clicks_from, most_open)
        drop(self._seen, lambda _, at: at < orders_from, most_open)
        drop(self._waiting, lambda _, event: _at(event) < self._now - self._lateness, most_waiting)
        for kept in self._clicks.values():
            del kept[: bisect_left(kept, (orders_from, 0), key=itemgetter(0))]
        drop(self._clicks, lambda _, kept: not kept, most_open)
        self._wanting.clear()
        for waiting in self._waiting.items():
            self._want(*waiting)
        # Days are those of the lists, which in a replay are not those of arrival; earlier ones are closed.
        closed = (self.watermark - self._click_window - self._order_window - self._lateness) // DAY_US
        self._visitors.forget_days(closed)
        drop(self._people, lambda key, _: key[2] < closed, self._params.belief.most_shoppers)


def _at(event: Mapping[str, Any]) -> int:
    """Arrival, us."""
    return int(event.get("arrived_ts", event["event_ts"]))


def _turn(key: bytes, event: Mapping[str, Any]) -> Turn:
    return _at(event), event["event_ts"], event["event_id"], key


def _wants(event: Mapping[str, Any]) -> list[Key]:
    """What an event waits for: a click for its list, an order for its shopper's click on the item."""
    if event["type"] == "click":
        return [(event.get("request_id") or "",)]
    return [(*person, event["item_id"]) for person in _people_of(event)]


def _people_of(event: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Whose click it may be: the session first, for a shopper may log in between a click and a purchase."""
    return [(kind, name) for kind in ("session", "user") if (name := event.get(f"{kind}_id"))]
