"""What this shop learned of its own past: quotas and window (`endcap blend`), the order (`endcap order`)."""

from dataclasses import replace
from typing import NamedTuple

from feature_repo.files import read_json
from feature_repo.params import load
from feature_repo.places import BLEND, ORDER, existing
from serving.stages.diversify import Diversify
from serving.stages.odds import Clicks
from serving.stages.retrieve import Retrieve

RANKER, OWN = "ranker", "blend"  # orders beside those of a single source, which are called like it


class Order(NamedTuple):
    """What serves, with the settings that make it so."""

    serves: str  # RANKER, OWN or a source of retrieve
    retrieve: Retrieve
    diversify: Diversify
    clicks: Clicks


def learned() -> Retrieve:
    """Section `retrieve` with the quotas and the window that were learned.

    Raises DataError where `endcap blend` has not run.
    """
    blend = read_json(existing(BLEND, "blend"), "run `endcap blend`", "quotas", "bought_days")
    return replace(load("retrieve", Retrieve), quotas=blend["quotas"], bought_days=blend["bought_days"])


def settings(serves: str, retrieve: Retrieve, diversify: Diversify, clicks: Clicks) -> Order:
    """The settings under which `serves` orders: variety is the ranker's alone, the long tail's slot of all.

    A source's own scores say how much better one item is than the next; its places, which are all that an
    order without trees hands on, do not, so that nothing may be weighed against them.
    """
    if serves == RANKER:
        return Order(serves, retrieve, diversify, clicks)
    if serves != OWN:
        retrieve = replace(retrieve, quotas={serves: retrieve.k})
    return Order(serves, retrieve, replace(diversify, trade_off=0.0), clicks)


def chosen(diversify: Diversify, clicks: Clicks) -> Order:
    """The order that won on validation. Raises DataError where `endcap order` has not run."""
    found = read_json(existing(ORDER, "order"), "run `endcap order`", "serves", "clicks")
    weights = {name: found["clicks"][name] for name in ("ranker", "attraction")}
    return settings(found["serves"], learned(), diversify, replace(clicks, **weights))
