"""Whose clicks count, by which clock, and what is remembered of whom."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from shops.lists import MINUTE, NOON, PARAMS, click, counts, event, joined, shown

from monitoring.experiment.attribution import Feedback
from monitoring.experiment.sequential import ArmStatistics
from monitoring.experiment.visitors import Belief

pytestmark = pytest.mark.fault


@pytest.mark.parametrize(
    ("who", "clicks"),
    [
        ({"user_id": None, "session_id": "s-u1"}, 1),
        ({"user_id": "u1", "session_id": "another device"}, 1),
        ({"user_id": "u2", "session_id": "s-u1"}, 1),
        ({"user_id": "u2", "session_id": "s-u2"}, 0),
        ({"user_id": None, "session_id": "s-u2"}, 0),
    ],
    ids=["own session", "own user", "logged in since", "foreign", "foreign and anonymous"],
)
def test_only_the_shopper_for_whom_a_list_was_made_can_click_it(who: dict[str, Any], clicks: int) -> None:
    assert counts(joined([shown("r1")], [click("r1", "a") | who])) == (clicks, 3)
    assert counts(joined([shown("r1", user_id=None)], [click("r1", "a") | who]))[0] <= clicks


HOUR = 60 * MINUTE


@pytest.mark.parametrize("jump", [-HOUR, 0, HOUR])
@pytest.mark.parametrize("who", ["shopper", "service"])
def test_a_clock_that_is_an_hour_off_breaks_no_window(jump: int, who: str) -> None:
    server, client = (jump, 0) if who == "service" else (0, jump)

    def run(delay: int) -> tuple[int, int, float]:
        """A list, a click on it after `delay`, a purchase an hour later, on a log that keeps its own time."""
        feedback = Feedback(PARAMS)
        feedback.update([shown("r0", NOON - MINUTE, "u0", arrived_ts=NOON - MINUTE)], [])
        feedback.update([shown("r1", NOON + server, arrived_ts=NOON)], [])
        for late in range(0, delay, 5 * MINUTE):  # others come meanwhile, by another, right clock
            at = NOON + late
            feedback.update([shown(f"o{late}", at, f"o{late}", arm="challenger", arrived_ts=at)], [])
        feedback.update([], [click("r1", "a", NOON + delay + client, arrived_ts=NOON + delay)])
        bought = event("purchase_completed", "a", NOON + delay + HOUR + client, price=3.0)
        feedback.update([], [bought | {"arrived_ts": NOON + delay + HOUR}])
        return *counts(feedback), sum(tally.revenue for tally in feedback.tallies().values())

    assert run(29 * MINUTE) == (1, 6, 3.0)
    assert run(31 * MINUTE) == (0, 6, 0.0)


def test_a_click_and_a_cart_that_arrive_together_are_told_apart_by_the_shoppers_clock() -> None:
    together = {"arrived_ts": NOON + 2 * MINUTE}
    for cart_at, carts in ((NOON, 0), (NOON + 2 * MINUTE, 1)):
        both = [click("r1", "a") | together, event("add_to_cart", "a", cart_at) | together]
        feedback = joined([shown("r1", arrived_ts=NOON)], both)
        feedback.update([], [])
        assert feedback.tallies()["champion", "homepage_hero", 20_000].carts == carts


def test_what_waits_has_bounds_and_the_newest_stay() -> None:
    few = replace(PARAMS, most_open=100, most_waiting=50, belief=Belief(4, 0.5, 200))
    feedback = Feedback(few)
    for i in range(1000):
        feedback.update([shown(f"r{i}", NOON + i, f"u{i}")], [click("never served", "a", name=f"w{i}")])
    assert len(feedback._open) <= 125 and len(feedback._waiting) <= 63 and len(feedback._people) <= 325
    assert len(feedback._visitors._shoppers) == 200
    assert feedback.crowd("champion").refused == 800
    assert feedback.statistics("champion").shoppers == 200
    feedback.update([], [click("r999", "a", unit="u999"), click("r0", "a", unit="u0")])
    tally = feedback.tallies()["champion", "homepage_hero", 20_000]
    assert tally.clicks == 1  # r0 was given up


def test_lists_of_another_version_of_the_rollout_do_not_count_and_leave_their_shoppers_known() -> None:
    lists = [shown("old", unit="u1", version=2), shown("new", unit="u1", version=3)]
    lists += [shown("other", unit="u2", version=3), shown("alone", unit="u3", version=None)]
    seen = set()
    for order in permutations(lists):
        feedback = Feedback(PARAMS, version=3)
        for record in order:
            feedback.update([record], [])
        feedback.update([], [event("product_viewed", "a", NOON, unit=unit) for unit in ("u1", "u2", "u3")])
        crowd = feedback.crowd("champion")
        seen.add((*counts(feedback), crowd.fresh, crowd.visiting))
    assert seen == {(0, 6, 1, 1)}


def test_an_empty_list_tells_the_arm_so_it_counts_in_the_split_alone() -> None:
    feedback = joined([shown("r1", items=[])], [])
    assert feedback.crowd("champion").fresh == 1
    assert feedback.statistics("champion") == ArmStatistics()


def test_a_shopper_who_clicks_more_than_people_do_is_left_out() -> None:
    greedy = [click(list_, item, name=list_ + item) for list_ in ("r1", "r2") for item in "abc"]
    feedback = joined([shown("r1"), shown("r2"), shown("r3", unit="u2")], greedy)
    crowd = feedback.crowd("champion")
    assert (crowd.suspects, crowd.suspect_clicks, crowd.visiting) == (1, 6, 1)
    assert feedback.statistics("champion") == ArmStatistics.of(0, 3)
