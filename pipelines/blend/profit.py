"""The margin's part in the order of lists: its weight, and the chances of a click that it needs."""

from dataclasses import dataclass

from feature_repo.errors import ParamsError
from feature_repo.files import read_json
from feature_repo.params import load
from feature_repo.places import ORDER, existing
from pipelines.protocol.chosen import RANKER
from serving.stages.odds import Chances, Profit


@dataclass(frozen=True)
class Margin:
    """Section `margin` of params.yaml."""

    weight: float  # of expected profit in the order of lists; 0 = none
    tried: tuple[float, ...]  # by `endcap margin`


def profit() -> Profit:
    """Section `margin` with the chances of a click that `endcap order` calibrated.

    Raises ParamsError for a weight where there are none: expected profit is then not known.
    """
    found = read_json(existing(ORDER, "order"), "run `endcap order`", "serves", "clicks")
    told = found["clicks"].get("chances") or {}
    chances = Chances(**{name: told[name] for name in Chances.__dataclass_fields__ if name in told})
    made = Profit(load("margin", Margin).weight, chances)
    if made.weight and (found["serves"] != RANKER or not chances.known):
        step = told.get("why") or "the ranker must serve, and lists be logged"
        raise ParamsError(
            f"margin.weight: {made.weight} is not allowed where no chance of a click is calibrated; "
            f"allowed: 0. Next: {step}; `endcap order` learns it"
        )
    return made
