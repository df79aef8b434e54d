"""Who came: a shopper's totals within an arm, whose clicks are believed, and how the arms were filled.

A shopper's arm is drawn with a secret salt, so nobody can know it without asking, and asking counts: the
split of those who were *first seen in this step* cannot be chosen by anybody. Who was seen in an earlier step
knows the arm, may come back or not as he likes, and is left out of the split, not of the clicks.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import add
from typing import Self

from monitoring.experiment.sequential import ArmStatistics
from serving.release.router import ARMS


@dataclass(frozen=True)
class Belief:
    """What is still believed of one shopper, and of how many shoppers."""

    most_clicks: int
    most_ctr: float
    most_shoppers: int


@dataclass(frozen=True)
class Crowd:
    """Who stands behind an arm's statistics.

    fresh      shoppers first seen in this step, also those who were shown an empty list
    visiting   of them, those of whom an event came after that
    suspects   shoppers with more clicks than is believed: they are not in the statistics
    refused    lists of shoppers beyond `most_shoppers`, which are not in the statistics either
    """

    fresh: int = 0
    visiting: int = 0
    suspects: int = 0
    suspect_clicks: int = 0
    refused: int = 0


@dataclass
class Seen:
    """One visitor of an (arm, surface, day)."""

    impressions: int = 0
    clicks: int = 0
    bought: bool = False


@dataclass
class SlotCounts:
    """Counts of one (arm, surface, day). A visitor is a unit with an exposure there.

    The squares are of one visitor's clicks and impressions there, `cross` is their product, each summed.
    """

    exposures: int = 0
    impressions: int = 0
    visitors: int = 0
    clicks: int = 0
    carts: int = 0
    purchases: int = 0
    buyers: int = 0
    revenue: float = 0.0
    clicks_sq: int = field(default=0, compare=False)
    impressions_sq: int = field(default=0, compare=False)
    cross: int = field(default=0, compare=False)

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(add, vars(self).values(), vars(other).values()))

    def see(self, seen: Seen, impressions: int = 0, clicks: int = 0) -> None:
        """A visitor is shown more slots there, or clicks on more of them; `seen` moves on."""
        self.impressions += impressions
        self.clicks += clicks
        self.impressions_sq += (seen.impressions + impressions) ** 2 - seen.impressions**2
        self.clicks_sq += (seen.clicks + clicks) ** 2 - seen.clicks**2
        after = (seen.impressions + impressions) * (seen.clicks + clicks)
        self.cross += after - seen.impressions * seen.clicks
        seen.impressions += impressions
        seen.clicks += clicks

    def statistics(self) -> ArmStatistics:
        """The sums, a visitor as one shopper of one day."""
        squares = self.clicks_sq, self.impressions_sq, self.cross
        return ArmStatistics(self.visitors, self.visitors, self.clicks, self.impressions, *squares)

    def rates(self) -> dict[str, float | None]:
        """CTR per served slot; carts, conversion (buyers) and revenue per visitor; None without a visitor."""
        people = self.visitors
        return {
            "ctr": self.clicks / self.impressions if self.impressions else None,
            "add_to_cart_rate": self.carts / people if people else None,
            "conversion": self.buyers / people if people else None,
            "revenue_per_visitor": self.revenue / people if people else None,
        }


class _Shopper:
    __slots__ = ("clicks", "days", "fresh", "impressions", "suspect", "visiting")

    def __init__(self, fresh: bool) -> None:
        self.clicks = self.impressions = self.days = 0
        self.fresh, self.visiting, self.suspect = fresh, False, False

    def statistics(self) -> ArmStatistics:
        """Nothing before the first slot, and nothing of a suspect."""
        if self.suspect or not self.impressions:
            return ArmStatistics()
        return ArmStatistics.of(self.clicks, self.impressions, self.days)


class Visitors:
    """Totals by arm and shopper, their sums by arm. Memory: an entry per shopper, at most `most_shoppers`."""

    def __init__(self, belief: Belief) -> None:
        self._belief = belief
        self._shoppers: dict[tuple[str, str], _Shopper] = {}  # by arm, unit
        self._earlier: set[str] = set()  # units seen in an earlier step
        self._days: set[tuple[str, str, int]] = set()  # arm, unit, day
        self._sums: dict[str, ArmStatistics] = defaultdict(ArmStatistics)
        self._crowds: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(vars(Crowd()), 0))

    def statistics(self, arm: str) -> ArmStatistics:
        """Sums over the arm's shoppers."""
        return self._sums[arm]

    def crowd(self, arm: str) -> Crowd:
        """Who they are."""
        return Crowd(**self._crowds[arm])

    def seen_earlier(self, unit: str) -> None:
        """A list of an earlier step: this shopper may know the arm, whatever arrives first."""
        if unit in self._earlier or len(self._earlier) >= self._belief.most_shoppers:
            return
        self._earlier.add(unit)
        for arm in ARMS:
            shopper = self._shoppers.get((arm, unit))
            if shopper and shopper.fresh:
                shopper.fresh = False
                self._add(arm, fresh=-1, visiting=-shopper.visiting)

    def show(self, arm: str, unit: str, day: int, slots: int) -> None:
        """A list of `slots`, maybe none, was made for the shopper on this day (since 1970)."""
        shopper = self._shoppers.get((arm, unit))
        if shopper is None:
            if len(self._shoppers) >= self._belief.most_shoppers:
                self._add(arm, refused=1)
                return
            shopper = self._shoppers[arm, unit] = _Shopper(unit not in self._earlier)
            self._add(arm, fresh=int(shopper.fresh))
        if not slots:
            return
        before = shopper.statistics()
        shopper.impressions += slots
        if (arm, unit, day) not in self._days:
            self._days.add((arm, unit, day))
            shopper.days += 1
        self._sums[arm] += shopper.statistics() - before

    def click(self, arm: str, unit: str) -> None:
        """A click on a slot that was shown. One too many takes the shopper out of the statistics."""
        if (shopper := self._shoppers.get((arm, unit))) is None:
            return
        before = shopper.statistics()
        shopper.clicks += 1
        if shopper.suspect:
            self._add(arm, suspect_clicks=1)
        elif shopper.clicks > max(self._belief.most_clicks, self._belief.most_ctr * shopper.impressions):
            shopper.suspect = True
            self._add(arm, suspects=1, suspect_clicks=shopper.clicks)
        self._sums[arm] += shopper.statistics() - before

    def visit(self, name: str) -> None:
        """An event of the user or session `name`, whoever that is."""
        for arm in ARMS:
            shopper = self._shoppers.get((arm, name))
            if shopper and not shopper.visiting:
                shopper.visiting = True
                self._add(arm, visiting=int(shopper.fresh))

    def forget_days(self, before: int) -> None:
        """No list of a day before this one (since 1970) comes any more."""
        self._days = {key for key in self._days if key[2] >= before}

    def _add(self, arm: str, **counts: int) -> None:
        for name, count in counts.items():
            self._crowds[arm][name] += count


def drop(kept: dict, stale: Callable[..., bool], most: int) -> int:
    """Drop the entries (key, value) that are stale, then the oldest beyond `most`; how many of the latter."""
    for key in [key for key, value in kept.items() if stale(key, value)]:
        del kept[key]
    over = [key for key, _ in zip(kept, range(len(kept) - most), strict=False)]
    for key in over:
        del kept[key]
    return len(over)
