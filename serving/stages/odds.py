"""What moves a shopper to click on what he is shown: the ranker's score and the item's own attraction.

The ranker learns what visits come to, and visits come to what they are shown: an item that is listed often is
touched often. A click given that the item was shown owes nothing to that (the position-based model: Craswell
et al., WSDM 2008), and how far each of the two tells it apart depends on what is known of the shopper. The
weights are learned from the shop's logged lists, by phase of a visit (pipelines/blend/clicks.py):

    stranger    no contact is known: nothing is personal
    returning   contacts of earlier visits only
    visit       a contact in this visit, or items that the request names
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import History
from feature_repo.errors import ParamsError
from serving.stages.steering import ordered, scaled
from serving.types import Floats, Ranked, Rows

PHASES = ("stranger", "returning", "visit")
SOURCE = "attractive"  # what a visit begins with


@dataclass(frozen=True)
class Clicks:
    """Section `clicks` of params.yaml, with the weights that the shop has learned; by phase."""

    places: int  # of the candidates of a visit that has not begun, for the most attractive items
    ranker: dict[str, float]  # log odds of a click per unit of the ranker's score
    attraction: dict[str, float]  # log odds per unit of the item's attraction

    def __post_init__(self) -> None:
        for name in ("ranker", "attraction"):
            if sorted(found := getattr(self, name)) != sorted(PHASES):
                allowed = f"exactly {', '.join(PHASES)}"
                raise ParamsError(f"clicks.{name}: {sorted(found)} is not allowed; allowed: {allowed}")

    def quotas(self, past: History, learned: dict[str, int]) -> dict[str, int]:
        """What the sources may bring: a visit that has not begun starts with what attracts anybody."""
        now = phase(past)
        return learned if now == "visit" or not self.attraction[now] else {SOURCE: self.places, **learned}

    def score(self, past: History, ranked: Floats, pull: Floats) -> Floats:
        """Log odds of a click but for a constant, float32 (n,), by the ranker's score and the attraction."""
        now = phase(past)
        weight, attraction = np.float32(self.ranker[now]), np.float32(self.attraction[now])
        return np.asarray(weight * ranked + attraction * pull, np.float32)


UNWEIGHTED = Clicks(0, dict.fromkeys(PHASES, 1.0), dict.fromkeys(PHASES, 0.0))  # the ranker's score alone


NONE = np.zeros(0, np.float32)  # of a release that knows no attraction


def pull_of(attraction: Floats, rows: Rows) -> Floats:
    """Those of `rows` (n,): float32 (n,); what it costs does not grow with the catalogue."""
    found, own = np.zeros(len(rows), np.float32), rows < len(attraction)
    found[own] = attraction[rows[own]]
    return found


def phase(past: History) -> str:
    """One of PHASES."""
    if not len(past.rows):
        return "stranger"
    return "visit" if past.current.any() else "returning"


@dataclass(frozen=True)
class Chances:
    """How likely a shown item is clicked, calibrated on logged lists (pipelines/blend/chances.py).

    log odds = surface + position * log(place) + weight * score; `odds` and `chance` are the corners of the
    isotonic curve from there. Without corners nothing is told: there were too few clicks.
    """

    surface: Mapping[str, float] = field(default_factory=dict)
    position: float = 0.0
    weight: float = 1.0
    odds: tuple[float, ...] = ()
    chance: tuple[float, ...] = ()

    @property
    def known(self) -> bool:
        return len(self.odds) > 0

    def of(self, surface: str, score: Floats, place: npt.ArrayLike = 1.0) -> npt.NDArray[np.float64]:
        """Of items with the served `score` (n,) at `place` (n,), from 1: float64 (n,).

        A surface without logged lists has the mean of the others.
        """
        mean = sum(self.surface.values()) / max(len(self.surface), 1)
        place = np.log(np.asarray(place, np.float64))
        log_odds = self.surface.get(surface, mean) + self.position * place + self.weight * score
        return np.interp(log_odds, self.odds, self.chance)


@dataclass(frozen=True)
class Profit:
    """Section `margin` of params.yaml, with the chances of a click that the shop has learned."""

    weight: float  # of expected profit against relevance; 0 = the lists are those of relevance alone
    chances: Chances = field(default_factory=Chances)

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ParamsError(
                f"margin.weight: {self.weight} is not allowed; allowed: 0 to 1. Next: 0 orders by relevance, "
                "1 by expected profit alone; `endcap margin` draws what each costs"
            )

    def weigh(self, ranked: Ranked, matrix: ItemMatrix, surface: str) -> Ranked:
        """By (1 - weight) * relevance + weight * expected profit, both scaled to 0..1; itself at 0.

        Expected profit is the chance of a click times the margin, a share of the price. A product without a
        margin has the mean of the other candidates: it is neither helped nor harmed. Chances of which all of
        a surface are wrong by one factor give the same order: the scale of 0..1 is that of this list.
        """
        if not self.weight or not self.chances.known or not len(ranked.rows):
            return ranked
        margin = matrix.margin[ranked.rows]
        known = ~np.isnan(margin)
        if not known.any():
            return ranked
        gain = self.chances.of(surface, ranked.score) * np.where(known, margin, margin[known].mean())
        relevance = (1 - self.weight) * scaled(ranked.score) + self.weight * scaled(gain.astype(np.float32))
        return ordered(ranked, relevance.astype(np.float32))


BY_RELEVANCE = Profit(0.0)
