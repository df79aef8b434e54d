"""What moves a shopper to click on what he is shown: the ranker's score and the item's own attraction.

The ranker learns what visits come to, and visits come to what they are shown: an item that is listed often is
touched often. A click given that the item was shown owes nothing to that (the position-based model: Craswell
et al., WSDM 2008), and how far each of the two tells it apart depends on what is known of the shopper. The
weights are learned from the shop's logged lists, by phase of a visit (pipelines/blend/clicks.py):

    stranger    no contact is known: nothing is personal
    returning   contacts of earlier visits only
    visit       a contact in this visit, or items that the request names
"""

from dataclasses import dataclass

import numpy as np

from feature_repo.assemble.visitor import History
from feature_repo.errors import ParamsError
from serving.types import Floats, Rows

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
