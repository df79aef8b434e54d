"""Who comes to a rehearsed canary: strangers whose clicks come together or do not, and regulars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from monitoring.experiment.guard import Step
from monitoring.experiment.rehearsal import Shoppers, watched
from monitoring.experiment.sequential import ArmStatistics

Looks = npt.NDArray[np.int64]
IMPRESSIONS = 30  # slots per user-day
HORIZON = 4  # times the planned user-days; then a person decides


class Crowd(Protocol):
    """Who comes. Arrays over runs and looks have the shape (runs, looks)."""

    @property
    def name(self) -> str:
        """As the table calls it."""

    def looks(self, step: Step) -> Looks:
        """User-days of the canary at each look."""

    def arm(self, rng: np.random.Generator, drop: float, user_days: Looks, runs: int) -> ArmStatistics:
        """An arm at each look, when it has `user_days` (looks,)."""


@dataclass(frozen=True)
class Strangers:
    """Every user-day another shopper."""

    ctr: float
    clustering: float

    @property
    def name(self) -> str:
        return f"{'clustered' if self.clustering else 'independent'}, CTR {self.ctr:.0%}"

    def looks(self, step: Step) -> Looks:
        """Twenty in the first quarter of the plan, when a rule errs most easily, then fifteen per plan."""
        early = np.linspace(0, step.user_days / 4, 21)[1:]
        late = np.linspace(0, HORIZON * step.user_days, 15 * HORIZON + 1)[1:]
        return np.unique(np.r_[early, late].round().astype(np.int64))

    def arm(self, rng: np.random.Generator, drop: float, user_days: Looks, runs: int) -> ArmStatistics:
        shoppers = Shoppers(self.ctr, float(IMPRESSIONS), self.clustering)
        return watched(rng, shoppers, drop, np.diff(user_days, prepend=0), runs)


@dataclass(frozen=True)
class Regulars:
    """The same people on every day, as many as fill the plan in ten days; a look every four days."""

    ctr: float
    clustering: float

    @property
    def name(self) -> str:
        return f"returning, CTR {self.ctr:.0%}"

    def looks(self, step: Step) -> Looks:
        return step.user_days * 4 // 10 * np.arange(1, 10 * HORIZON // 4 + 1)

    def arm(self, rng: np.random.Generator, drop: float, user_days: Looks, runs: int) -> ArmStatistics:
        people, ctr, weight = int(user_days[0]) // 4, self.ctr * (1 - drop), 1 / self.clustering - 1
        likes = rng.beta(weight * ctr, weight * (1 - ctr), (runs, people))
        clicks, sums = np.zeros((runs, people)), np.zeros((2, runs, len(user_days)))
        for look in range(len(user_days)):
            clicks += rng.binomial(4 * IMPRESSIONS, likes)
            sums[:, :, look] = clicks.sum(axis=1), np.square(clicks).sum(axis=1)
        shown = 4 * IMPRESSIONS * np.arange(1, len(user_days) + 1)  # to each of them
        fields = (user_days, people, people * shown, people * shown**2)
        days, shoppers, slots, slots_sq = (np.broadcast_to(f, sums.shape[1:]) for f in fields)
        return ArmStatistics(days, shoppers, sums[0], slots, sums[1], slots_sq, sums[0] * shown)
