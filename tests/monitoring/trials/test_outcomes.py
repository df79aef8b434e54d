"""From the records of the logs to a verdict: simulated visits whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from feature_repo.params import load
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.tail import Exposure
from monitoring.trials.outcomes import METRICS, Outcomes, of_flag, of_holdout
from monitoring.trials.verdicts import Trials, judge
from serving.flags.assignment import treatment
from serving.flags.flag_document import Flags, parse
from serving.types import Request

T0, MINUTE = 1_700_000_000_000_000, 60_000_000
ITEMS = [f"item-{at}" for at in range(12)]
NAMES = ("control", "b")
FLAGS = parse(
    orjson.dumps(
        {
            "flags": [
                {
                    "key": "f",
                    "salt": "s",
                    "status": "running",
                    "since": 3,
                    "variants": [{"name": name} for name in NAMES],
                }
            ]
        }
    )
).model_copy(update={"version": 3})
FLAG = FLAGS.flag("f")


def shown(unit: str, at: int, found: Flags = FLAGS, number: int = 0, **more: Any) -> dict[str, Any]:
    """As serving/live/exposures.py logs it."""
    inside = treatment(found, Request("homepage_hero", session_id=unit), unit, False)
    told = {"request_id": f"{unit}-{number}", "ts": at, "arm": "champion", "bundle": "b", "unit": unit}
    told |= {"surface": "homepage_hero", "user_id": None, "session_id": unit, "items": ITEMS}
    return told | {"arrived_ts": at, "flags": inside.version, "variants": inside.variants} | more


def did(kind: str, unit: str, at: int, number: int = 0, **more: Any) -> dict[str, Any]:
    told = {"event_id": f"{kind}-{unit}-{at}-{number}", "type": kind, "session_id": unit, "event_ts": at}
    return told | {"arrived_ts": at, "item_id": ITEMS[number], "request_id": f"{unit}-0"} | more


def outcomes(exposures: list[dict[str, Any]], events: list[dict[str, Any]]) -> Outcomes:
    found = Outcomes(load("feedback", FeedbackParams))
    found.update(exposures, events)
    return found


def of_one(found: Outcomes) -> dict[str, tuple[float, float, float]]:
    people = found.people(of_flag(FLAG), NAMES)
    assert len(people.variant) == 1
    told = people.outcomes
    return {
        name: (float(told[name].top[0]), float(told[name].base[0]), float(told[name].before[0]))
        for name in METRICS
    }


def test_what_a_visitor_did_counts_from_the_first_list_on_and_what_was_before_stands_apart() -> None:
    events = [
        did("product_viewed", "u", T0 - 9 * MINUTE),
        did("purchase_completed", "u", T0 - 8 * MINUTE, price=7.0, quantity=1),
        did("click", "u", T0 + MINUTE),
        did("add_to_cart", "u", T0 + 2 * MINUTE, number=5),
        did("purchase_completed", "u", T0 + 3 * MINUTE, number=5, price=4.0, quantity=2),
    ]
    found = of_one(outcomes([shown("u", T0)], [*events, events[-1]]))
    assert found == {
        "ctr": (1, 12, 0),
        "add_to_cart_rate": (1, 1, 0),
        "conversion": (1, 1, 1),
        "revenue_per_visitor": (8, 1, 7),
        "session_length": (3, 1, 2),
    }


def test_lists_of_before_it_was_started_and_of_logs_that_know_no_variants_are_no_part_of_it() -> None:
    older = FLAGS.model_copy(update={"version": 2})
    old = {name: value for name, value in shown("w", T0).items() if name not in ("flags", "variants")}
    assert Exposure.parse(old).variants == {}
    people = outcomes([shown("u", T0, older), old], []).people(of_flag(FLAG), NAMES)
    assert len(people.variant) == 0


def test_who_clicks_more_than_people_do_is_left_out_and_told() -> None:
    clicks = [did("click", "u", T0 + MINUTE + at, number=at) for at in range(12)]
    people = outcomes([shown("u", T0), shown("v", T0)], clicks).people(of_flag(FLAG), NAMES)
    assert (len(people.variant), people.suspects) == (1, 1)


def test_events_that_the_door_believed_nothing_of_count_for_nothing() -> None:
    event = did("purchase_completed", "u", T0 + MINUTE, price=9.0) | {"uncounted": "signature"}
    assert of_one(outcomes([shown("u", T0)], [event]))["revenue_per_visitor"][0] == 0


def test_the_holdout_is_an_experiment_of_its_own() -> None:
    lists = [shown("u", T0, arm="holdout"), shown("v", T0)]
    people = outcomes(lists, []).people(of_holdout, ("holdout", "personalised"))
    assert sorted(people.variant.tolist()) == [0, 1]


@pytest.mark.parametrize(("lift", "says"), [(0.0, "open"), (0.4, "better"), (-0.4, "worse")])
def test_a_lift_of_simulated_visits_is_found_from_the_logs_alone(lift: float, says: str) -> None:
    """4,000 visitors, of whom half were there before; those of b click and buy more, or less, or alike."""
    rng = np.random.default_rng(9)
    exposures, events = [], []
    for number in range(4_000):
        unit, keen = f"visitor-{number}", float(rng.gamma(2.0, 0.5))
        if number % 2:
            events += [
                did("product_viewed", unit, T0 - MINUTE * (2 + at)) for at in range(rng.poisson(3 * keen))
            ]
        exposures.append(shown(unit, T0 + number))
        more = 1 + lift if exposures[-1]["variants"]["f"] == "b" else 1.0
        for item in np.flatnonzero(rng.random(12) < 0.08 * keen * more).tolist()[:4]:
            events.append(did("click", unit, T0 + MINUTE, number=item))
            if rng.random() < 0.3:
                events.append(did("add_to_cart", unit, T0 + 2 * MINUTE, number=item))
    people = outcomes(exposures, events).people(of_flag(FLAG), NAMES)
    found = judge(people, FLAG.shares, 0.1, load("trials", Trials))
    assert not found.void and sum(found.visitors.values()) == 4_000
    line = next(line for line in found.lines if line.metric == "ctr")
    assert line.verdict == says and line.lower < lift < line.upper
