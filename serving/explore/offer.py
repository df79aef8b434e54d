"""The last slot of some lists for a product that nobody was shown, by a draw whose chance is known.

A product without impressions has no clicks, and so never gets any: whatever ranks by what was seen leaves it
where it is. In `share` of the lists the last slot is that of one of the products on offer, each as likely as
another. What the list would hold there otherwise, by the long tail's own draw, keeps the rest of the chance.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.errors import ParamsError
from feature_repo.events import SURFACES
from serving.types import Filter

UNSEEN = "unseen"  # the source that such a slot names


@dataclass(frozen=True)
class Explore:
    """Section `explore` of params.yaml."""

    share: float  # of the lists, whose last slot is an unseen product's; 0: none, and nothing is polled
    per_day: int  # such slots of a surface and a UTC day at most, all workers together
    surfaces: tuple[str, ...]  # without a craft of their own: filters leave no room for a draw
    lease: int  # slots of the day's budget that a worker takes at a time
    poll_s: float  # how often a worker looks for other products and more slots

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ParamsError(
                f"explore.share: {self.share} is not allowed; allowed: a share from 0 to below 1. "
                "Next: 0.1 gives unseen products a slot in every tenth list, 0 in none"
            )
        if odd := sorted(set(self.surfaces) - set(SURFACES)):
            raise ParamsError(f"explore.surfaces: {odd[0]!r} is unknown; allowed: {', '.join(SURFACES)}")


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """Rows (n,) of the products on offer, and where this list stands in [0, 1): below `share` it explores."""

    share: float
    rows: npt.NDArray[np.int64]
    drawn: float

    def open(self, may: Filter, taken: Collection[int], fits: Callable[[int], bool]) -> list[int]:
        """Those that this list may show: let by `may`, not on it already, and within the rules' caps."""
        held = set(taken)
        return [r for r in self.rows[may.of(self.rows)].tolist() if r not in held and fits(r)]

    def pick(self, rows: list[int]) -> int | None:
        """One of `rows`, each as likely; None where the draw gives the slot to nobody."""
        if not rows or self.drawn >= self.share:
            return None
        return rows[min(int(self.drawn / self.share * len(rows)), len(rows) - 1)]

    def chance(self, row: int, rows: list[int], otherwise: float) -> float:
        """That the slot holds `row`: on offer are `rows`, and without an offer it would by `otherwise`.

        >>> Offer(0.1, np.array([4, 7]), 0.5).chance(7, [4, 7], otherwise=0.0)
        0.05
        """
        return (1 - self.share) * otherwise + self.share / len(rows) * (row in rows) if rows else otherwise
