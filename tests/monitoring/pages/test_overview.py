"""Overview over real logs: what each arm got by day and surface, and what a release is worth to the shop."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from feature_repo.clock import DAY_US
from feature_repo.eventlog.lua import append
from feature_repo.params import load
from monitoring.alerting.troubles import AlarmParams, lift, no_lift
from monitoring.experiment.attribution import FeedbackParams
from monitoring.experiment.guard import RolloutParams
from monitoring.experiment.sequential import ArmStatistics
from monitoring.experiment.visitors import Seen, SlotCounts
from monitoring.pages import trend
from monitoring.pages.figures import Course, rows
from monitoring.pages.overview import surfaces
from serving.release.state import Release, RolloutState

DAY = 20_000
ENOUGH, PARAMS = load("rollout", RolloutParams), load("alarms", AlarmParams)


def show(
    redis: Redis, arm: str, unit: str, day: int, clicks: int, surface: str = "homepage_hero", version: int = 1
) -> None:
    """A list of ten to `unit`, of which `clicks` are clicked."""
    request_id = f"{arm} {unit} {day} {surface}"
    told: dict[str, Any] = {"request_id": request_id, "ts": day * DAY_US, "unit": unit, "session_id": unit}
    told |= {
        "version": version,
        "arm": arm,
        "bundle": "a" * 16,
        "surface": surface,
        "items": [f"item-{i}" for i in range(10)],
    }
    redis.xadd("endcap:exposures", {"exposure": orjson.dumps(told)})
    for at in range(clicks):
        click = {"event_id": f"{request_id} {at}", "event_ts": day * DAY_US + 1, "type": "click"}
        click |= {"session_id": unit, "request_id": request_id, "item_id": f"item-{at}"}
        append(redis, 0, orjson.dumps(click))


def rollout(version: int = 1, since: str = "0-0") -> RolloutState:
    return RolloutState(version, Release("a" * 16, "a"), since=since)


@pytest.fixture
def course(redis_url: str) -> Course:
    return Course(Redis.from_url(redis_url), load("feedback", FeedbackParams))


def test_each_day_of_an_arm_and_surface_has_its_own_clicks(course: Course, redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        show(redis, "champion", "ann", DAY, 2)
        show(redis, "champion", "bob", DAY + 1, 1)
        show(redis, "holdout", "eve", DAY + 1, 0)
        show(redis, "champion", "ann", DAY, 4, "pdp_fbt")
        days = course.look(rollout()).days
        assert days["homepage_hero"]["champion"][DAY] == ArmStatistics.of(2, 10)
        assert days["homepage_hero"]["champion"][DAY + 1] == ArmStatistics.of(1, 10)
        assert days["homepage_hero"]["holdout"] == {DAY + 1: ArmStatistics.of(0, 10)}
        assert days["pdp_fbt"] == {"champion": {DAY: ArmStatistics.of(4, 10)}}
        show(redis, "champion", "bob", DAY, 1)  # what arrives between two looks
        told = course.look(rollout())
        assert told.days["homepage_hero"]["champion"][DAY].shoppers == 2
        assert [(name, slots) for name, slots, _ in surfaces(told)] == [
            ("homepage_hero", 40),
            ("pdp_fbt", 10),
        ]


def test_of_the_step_counts_what_came_since_the_rollout_changed_and_each_click_once(
    course: Course, redis_url: str
) -> None:
    with Redis.from_url(redis_url) as redis:
        show(redis, "champion", "ann", DAY, 2)
        assert course.look(rollout()).step["champion"] == ArmStatistics.of(2, 10)
        since = redis.xrevrange("endcap:exposures", count=1)[0][0].decode()  # type: ignore[index]
        show(redis, "champion", "bob", DAY, 1, version=2)
        told = course.look(rollout(2, since))
        assert (told.step["champion"], told.whole["champion"].shoppers) == (ArmStatistics.of(1, 10), 2)
        show(redis, "champion", "eve", DAY, 3, version=2)
        told = course.look(rollout(2, since))
        assert told.step["champion"] == ArmStatistics.of(1, 10) + ArmStatistics.of(3, 10)
        late = Course(redis, load("feedback", FeedbackParams)).look(rollout(2, since))
        assert (late.step, late.whole, late.tallies) == (told.step, told.whole, told.tallies)
        holdout, champion = rows(redis, rollout(2, since), told)
        assert (champion.tally.clicks, champion.tally.impressions, holdout.tally.impressions) == (4, 20, 0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30), st.booleans()), max_size=40))
def test_sums_of_squares_are_those_of_each_visitors_totals(told: list[tuple[int, int, bool]]) -> None:
    counts, people = SlotCounts(), {}
    for unit, many, clicks in told:
        if unit not in people:
            people[unit] = Seen()
            counts.visitors += 1
        counts.see(people[unit], **{"clicks" if clicks else "impressions": many})
    expected = [ArmStatistics.of(one.clicks, one.impressions) for one in people.values()]
    assert counts.statistics() == sum(expected, ArmStatistics())


def test_a_lift_is_told_when_there_is_enough_of_both_arms() -> None:
    few, many = ENOUGH.burn_in_shoppers - 1, 20_000
    assert lift(ArmStatistics.of(1, 10), ArmStatistics.of(1, 10), PARAMS, ENOUGH) is None

    def arm(shoppers: int, clicking: int) -> ArmStatistics:
        some, none = ArmStatistics.of(1, 10), ArmStatistics.of(0, 10)
        told = [value * clicking for value in vars(some).values()]
        rest = [value * (shoppers - clicking) for value in vars(none).values()]
        return ArmStatistics(*told) + ArmStatistics(*rest)

    assert lift(arm(many, many // 3), arm(few, few // 3), PARAMS, ENOUGH) is None
    found = lift(arm(many, many // 3), arm(many, many // 4), PARAMS, ENOUGH)
    assert found is not None and found.estimate == pytest.approx(1 / 3, abs=0.01)
    assert 0.2 < found.lower < found.estimate < found.upper < 0.5
    same = lift(arm(many, many // 4), arm(many, many // 4), PARAMS, ENOUGH)
    assert same is not None and same.lower < 0 < same.upper
    unclicked = lift(arm(many, 0), arm(many, many // 4), PARAMS, ENOUGH)
    assert unclicked is not None and unclicked.upper < 0, "a champion that nobody clicks is judged as well"
    assert no_lift(arm(many, 0), arm(many, many // 4), PARAMS, ENOUGH)  # the alarm and the page: one verdict
    assert not no_lift(arm(many, many // 3), arm(many, many // 4), PARAMS, ENOUGH)
    wider = lift(arm(many, many // 3), arm(many, many // 4), replace(PARAMS, alpha=0.001), ENOUGH)
    assert wider is not None and wider.lower < found.lower


def test_the_picture_has_a_mark_for_each_day_and_stays_in_its_frame() -> None:
    people = sum((ArmStatistics.of(clicks, 10) for clicks in (0, 1, 3)), ArmStatistics())
    drawn = str(trend.draw({"champion": {DAY: people, DAY + 5: people}, "holdout": {DAY: people}}))
    assert drawn.count("<circle") == 3 and drawn.count('class="span') == 3
    assert "04 Oct 2024" in drawn and "09 Oct 2024" in drawn
    for name, most in (("x1", trend.WIDTH), ("cx", trend.WIDTH), ("cy", trend.HEIGHT), ("y2", trend.HEIGHT)):
        at = [float(value) for value in re.findall(rf' {name}="([^"]+)"', drawn)]
        assert at and all(math.isfinite(value) and 0 <= value <= most for value in at)
    one = str(trend.draw({"champion": {DAY: ArmStatistics.of(0, 10)}}))
    assert one.count("<circle") == 1 and "nan" not in one
    assert str(trend.draw({})) == ""
