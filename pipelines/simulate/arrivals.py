"""When sessions start, who comes, and what for: the arrivals of the simulated shop."""

from dataclasses import dataclass

import numpy as np

from feature_repo.clock import DAY_US, HOUR_US
from pipelines.simulate.world import World

# Share of a day's sessions per hour (UTC): quiet nights, a lunch bump, a long evening.
_HOURS = np.array([2.0, 1, 1, 1, 1, 2, 4, 6, 7, 8, 8, 9, 10, 10, 9, 9, 9, 10, 12, 14, 15, 14, 10, 5])
_WEEKDAYS = np.array([1.05, 1.0, 0.98, 1.0, 0.92, 1.0, 1.2])  # Monday first: the shop's week, Sunday peak


@dataclass(frozen=True)
class Sessions:
    """S visits in order of their start."""

    shopper: np.ndarray  # (S,) int, row of World.shoppers
    start_us: np.ndarray  # (S,) int, microseconds since the start of the period
    leaf: np.ndarray  # (S,) int, intent
    style: np.ndarray  # (S,) int, intent
    channel: np.ndarray  # (S,) str

    def __len__(self) -> int:
        return len(self.shopper)


def arrivals(after_day: np.ndarray, days: int, growth: float, rng: np.random.Generator) -> np.ndarray:
    """(n,) start times in microseconds, each at `after_day` or later, with the cycles of day and week.

    `growth` is the relative rise of traffic over the whole period, 0.1 for 10 %. Day 0 is a Monday.
    """
    hours = np.arange(days * 24)
    rate = _HOURS[hours % 24] * _WEEKDAYS[hours // 24 % 7] * (1.0 + growth * hours / len(hours))
    total = np.concatenate([[0.0], np.cumsum(rate) / rate.sum()])  # (hours + 1,), share of traffic so far
    earliest = np.interp(after_day * 24, np.arange(len(total)), total)
    share = rng.uniform(earliest, 1.0)
    start = np.interp(share, total, np.arange(len(total))) * HOUR_US
    return np.minimum(start.astype(np.int64), days * DAY_US - 1)


def schedule(world: World, sessions: int, days: int, rng: np.random.Generator) -> Sessions:
    """`sessions` visits over `days` days; known shoppers come again, at times on the same errand."""
    people, who = world.shoppers, world.population
    known, total = len(people.user_ids), len(people.budget)
    anonymous = np.arange(known, total)
    expected = people.activity * (1.0 - people.joined_day / days)
    counts = rng.multinomial(sessions - len(anonymous), expected / expected.sum())
    returning = np.repeat(np.arange(known), counts)
    shopper = np.concatenate([returning, anonymous])
    joined = np.concatenate([people.joined_day[returning], np.zeros(len(anonymous))])
    start = arrivals(joined, days, who.growth, rng)
    by_shopper = np.lexsort((start, shopper))
    shopper, start = shopper[by_shopper], start[by_shopper]
    leaf, style = world.intents(shopper, start / DAY_US, rng)
    resumes = (rng.random(len(shopper)) < who.resume_share) & (np.diff(shopper, prepend=-1) == 0)
    origin = np.maximum.accumulate(np.where(resumes, 0, np.arange(len(shopper))))
    channel = world.channels(shopper, rng)
    order = np.argsort(start, kind="stable")
    return Sessions(shopper[order], start[order], leaf[origin][order], style[origin][order], channel[order])
