"""What live shoppers counted at the endpoint: calls, latencies, and clicks per arm."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date

import numpy as np


@dataclass
class Arm:
    """What one arm showed and got."""

    impressions: int = 0
    clicks: int = 0
    user_days: set[tuple[str, date]] = field(default_factory=set)

    @property
    def ctr(self) -> float:
        """Clicks per impression, 0 where nothing was shown."""
        return self.clicks / self.impressions if self.impressions else 0.0


@dataclass
class Observed:
    """What the shoppers saw of the endpoint. Latencies are those of recommend only."""

    shoppers: int = 0
    requests: int = 0
    failures: int = 0
    rejected_events: int = 0
    arms: defaultdict[str, Arm] = field(default_factory=lambda: defaultdict(Arm))
    latencies_ms: list[float] = field(default_factory=list)

    def listed(self, arm: str, shown: int, clicked: int, who: str, day: date) -> None:
        """A list of `shown` items with `clicked` clicks; a user counts once a day."""
        seen = self.arms[arm]
        seen.impressions += shown
        seen.clicks += clicked
        seen.user_days.add((who, day))

    def latency_ms(self, percentile: float) -> float:
        """`percentile` (0..100) of the answered recommend calls, nan where there is none."""
        return float(np.percentile(self.latencies_ms, percentile)) if self.latencies_ms else float("nan")

    def lines(self) -> list[str]:
        """For a terminal: calls, latency, and a line per arm."""
        p50, p99 = self.latency_ms(50), self.latency_ms(99)
        text = [
            f"{self.shoppers:,} shoppers, {self.requests:,} requests, {self.failures:,} failed, "
            f"{self.rejected_events:,} events refused, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        ]
        for name, arm in sorted(self.arms.items()):
            seen = f"{arm.impressions:>9,} impressions  {arm.clicks:>7,} clicks  CTR {arm.ctr:6.2%}"
            text.append(f"{name:<12}{seen}  {len(arm.user_days):>7,} user-days")
        return text
