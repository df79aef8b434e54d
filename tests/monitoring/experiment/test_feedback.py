"""The join of exposures to clicks, carts and purchases, and the job that writes it down."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from redis import Redis
from shops.effort import effort
from shops.lists import MINUTE, NOON, PARAMS, click, counts, event, joined, shown

from feature_repo.clock import DAY_US, SECOND_US
from feature_repo.eventlog.keys import partition_of
from feature_repo.eventlog.lua import append
from feature_repo.params import load
from monitoring.experiment import feedback as job
from monitoring.experiment.attribution import Feedback, FeedbackParams
from monitoring.experiment.sequential import ArmStatistics
from monitoring.experiment.tail import Tail


def test_a_click_counts_once_per_exposure_however_often_it_is_sent() -> None:
    again = [click("r1", "a"), click("r1", "a"), click("r1", "a", NOON + 2 * MINUTE)]
    assert counts(joined([shown("r1")], again)) == (1, 3)
    assert counts(joined([shown("r1"), shown("r1")], again)) == (1, 3)


@pytest.mark.parametrize(
    "stray",
    [
        click("r2", "a"),
        click("r1", "z"),
        click("r1", "a", NOON + 31 * MINUTE),
        event("click", "a", NOON + MINUTE),
        event("product_viewed", "a", NOON + MINUTE, request_id="r1"),
    ],
    ids=["other request", "item not shown", "too late", "no request", "a view is not a click"],
)
def test_what_cannot_be_joined_is_not_counted(stray: dict[str, Any]) -> None:
    assert counts(joined([shown("r1")], [stray])) == (0, 3)


def test_a_shoppers_clock_may_be_a_little_behind() -> None:
    assert counts(joined([shown("r1")], [click("r1", "a", NOON - MINUTE)])) == (1, 3)
    assert counts(joined([shown("r1")], [click("r1", "a", NOON - 3 * MINUTE)])) == (0, 3)


def test_a_click_may_arrive_before_its_exposure() -> None:
    feedback = Feedback(PARAMS)
    feedback.update([shown("r0", NOON - MINUTE)], [click("r1", "a")])
    assert counts(feedback) == (0, 3)
    feedback.update([shown("r1")], [])
    assert counts(feedback) == (1, 6)


def test_statistics_are_by_shopper_and_count_user_days() -> None:
    late = NOON + DAY_US
    feedback = joined(
        [shown("r1"), shown("r2"), shown("r3", unit="u2"), shown("r4", late)],
        [click("r1", "a"), click("r2", "b"), click("r4", "c", late)],
    )
    # u1 today clicks 2 of 6 and tomorrow 1 of 3, u2 today 0 of 3.
    assert feedback.statistics("champion") == ArmStatistics.of(3, 9, user_days=2) + ArmStatistics.of(0, 3)
    assert feedback.statistics("challenger") == ArmStatistics()


def test_a_click_after_midnight_belongs_to_the_day_of_its_exposure() -> None:
    before_midnight = 20_001 * DAY_US - MINUTE
    feedback = joined([shown("r1", before_midnight)], [click("r1", "a", 20_001 * DAY_US + MINUTE)])
    assert feedback.statistics("champion") == ArmStatistics.of(1, 3)
    assert list(feedback.tallies()) == [("champion", "homepage_hero", 20_000)]


def test_an_answer_to_nobody_is_no_part_of_the_experiment() -> None:
    feedback = joined([shown("r1", unit=None, session_id=None)], [click("r1", "a")])
    assert feedback.statistics("champion") == ArmStatistics()
    tally = feedback.tallies()["champion", "homepage_hero", 20_000]
    assert (tally.clicks, tally.impressions, tally.visitors) == (1, 3, 1)


def test_orders_belong_to_the_latest_click_on_the_item_within_a_day() -> None:
    hour = 60 * MINUTE
    feedback = joined(
        [shown("r1"), shown("r2", NOON + hour, arm="challenger")],
        [
            click("r1", "a"),
            click("r2", "a", NOON + hour + MINUTE),
            event("add_to_cart", "a", NOON + 2 * hour),
            event("add_to_cart", "a", NOON + 3 * hour),
            event("purchase_completed", "a", NOON + 4 * hour, price=20.0, quantity=2),
            event("purchase_completed", "b", NOON + 4 * hour, price=99.0),
            event("purchase_completed", "a", NOON + 26 * hour, price=99.0),
        ],
    )
    first, second = (feedback.tallies()[arm, "homepage_hero", 20_000] for arm in ("champion", "challenger"))
    assert (first.clicks, first.carts, first.purchases, first.revenue) == (1, 0, 0, 0.0)
    assert (second.clicks, second.carts, second.purchases, second.buyers, second.revenue) == (
        1,
        1,
        1,
        1,
        40.0,
    )
    assert second.rates() == {
        "ctr": 1 / 3,
        "add_to_cart_rate": 1.0,
        "conversion": 1.0,
        "revenue_per_visitor": 40.0,
    }


def test_an_order_before_the_click_does_not_count() -> None:
    feedback = joined([shown("r1")], [click("r1", "a"), event("add_to_cart", "a", NOON)])
    assert feedback.tallies()["champion", "homepage_hero", 20_000].carts == 0


def test_an_order_follows_its_shopper_through_a_login_in_mid_session() -> None:
    anonymous = click("r1", "a", unit="x") | {"user_id": None}
    bought = event("purchase_completed", "a", NOON + 9 * MINUTE, unit="u7", price=5.0) | {"session_id": "s-x"}
    feedback = joined([shown("r1", unit="s-x", user_id=None, session_id="s-x")], [anonymous, bought])
    assert feedback.tallies()["champion", "homepage_hero", 20_000].revenue == 5.0


def test_two_items_of_one_order_are_one_buyer() -> None:
    bought = [event("purchase_completed", item, NOON + 5 * MINUTE, price=1.0) for item in "ab"]
    tally = joined([shown("r1")], [click("r1", "a"), click("r1", "b"), *bought]).tallies()
    assert tally["champion", "homepage_hero", 20_000].buyers == 1
    assert tally["champion", "homepage_hero", 20_000].purchases == 2


def test_any_batching_and_any_order_within_the_lateness_gives_the_same_statistics() -> None:
    rng = random.Random(5)
    exposures, events = [], []
    for i in range(300):
        at, unit, arm = (
            NOON + i * SECOND_US // 4,
            f"u{rng.randrange(40)}",
            rng.choice(["champion", "challenger"]),
        )
        exposures.append(shown(f"r{i}", at, unit, arm=arm))
        if rng.random() < 0.4:
            item = rng.choice("abc")
            events.append(click(f"r{i}", item, at + SECOND_US, unit=unit))
            if rng.random() < 0.5:
                events.append(event("add_to_cart", item, at + 3 * SECOND_US, unit=unit))
                events.append(event("purchase_completed", item, at + 5 * SECOND_US, unit=unit, price=3.0))
    whole = joined(exposures, events)
    assert whole.statistics("champion").clicks > 20
    events += rng.sample(events, 50)
    rng.shuffle(events)
    pieces = Feedback(PARAMS)
    for i in range(0, 500, 10):
        pieces.update(exposures[i : i + 10], events[i : i + 10])
    for arm in ("champion", "challenger"):
        assert pieces.statistics(arm) == whole.statistics(arm)
    # Which of two clicks gets an order depends on what had arrived by then; that it counts once does not.
    for name in ("clicks", "impressions", "exposures", "visitors", "revenue"):
        assert sum(getattr(t, name) for t in pieces.tallies().values()) == sum(
            getattr(t, name) for t in whole.tallies().values()
        )


def test_memory_holds_the_open_windows_only_and_the_sums_stay() -> None:
    feedback = Feedback(PARAMS)
    for day in range(30):
        at = NOON + day * DAY_US
        feedback.update([shown(f"r{day}", at)], [click(f"r{day}", "a", at + MINUTE)])
    assert counts(feedback) == (30, 90)
    assert feedback.statistics("champion").shoppers == 1
    assert feedback.statistics("champion").user_days == 30
    kept = ("_open", "_clicks", "_seen", "_waiting", "_people")
    assert all(len(getattr(feedback, name)) <= 4 for name in kept)
    assert all(len(getattr(feedback._visitors, name)) <= 4 for name in ("_days", "_shoppers"))


def test_one_shopper_who_clicks_and_orders_without_end_costs_hardly_more_than_many() -> None:
    """What he sends is joined to his own earlier clicks: looking through all of them is quadratic."""

    def join(people: int, many: int = 6_000) -> None:
        feedback = Feedback(PARAMS)
        for first in range(0, many, 100):
            lists, events = [], []
            for number in range(first, first + 100):
                who, at = f"u{number % people}", NOON + number * 1_000
                lists.append(shown(f"r{number}", at, unit=who))
                events.append(click(f"r{number}", "a", at + 1, unit=who))
                events.append(event("add_to_cart", "a", at + 2, unit=who))
                events.append(event("add_to_cart", "b", at + 3, unit=who))  # nobody clicked: it waits
            feedback.update(lists, events)
        assert sum(tally.carts for tally in feedback.tallies().values()) == many

    assert effort(lambda: join(1)) < 5 * effort(lambda: join(6_000))


@pytest.fixture
def streams(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


def publish(redis: Redis, exposures: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
    for record in exposures:
        redis.xadd("endcap:exposures", {"exposure": orjson.dumps(record)})
    for record in events:
        append(redis, partition_of(record["session_id"], 4), orjson.dumps(record))


def test_the_tail_reads_on_where_it_stopped(streams: Redis) -> None:
    tail, feedback = Tail(streams), Feedback(PARAMS)
    publish(streams, [shown("r1")], [click("r1", "a")])
    assert tail.feed(feedback) == 2
    publish(streams, [shown("r2")], [click("r2", "b")])
    assert tail.feed(feedback) == 2
    assert tail.feed(feedback) == 0
    assert counts(feedback) == (2, 6)
    again = Feedback(PARAMS)
    assert Tail(streams, tail.exposures_at).feed(again) <= 1
    assert counts(again) == (0, 0)


def test_what_could_not_be_taken_in_is_handed_over_again(
    streams: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail, feedback = Tail(streams), Feedback(PARAMS)
    publish(streams, [shown("r1")], [click("r1", "a")])
    with monkeypatch.context() as patch:
        patch.setattr(Feedback, "update", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tail.feed(feedback)
    assert tail.exposures_at == "0-0" and tail.feed(feedback) == 2
    assert counts(feedback) == (1, 3)


def test_lists_do_not_run_ahead_of_their_clicks_where_the_log_of_events_is_long(
    streams: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitoring.experiment.tail.BATCH", 2)
    ms = 1_700_000_000_000
    streams.xadd("endcap:exposures", {"exposure": orjson.dumps(shown("r1"))}, id=f"{ms}-0")
    looks = [event("product_viewed", "c", NOON + n) for n in range(9)]
    for n, one in enumerate([*looks, click("r1", "a")]):
        streams.xadd("endcap:events:0", {"event": orjson.dumps(one)}, id=f"{ms + n + 1}-0")
    later = ms + 3 * 3_600_000  # r1 is too old for a click by then
    streams.xadd("endcap:exposures", {"exposure": orjson.dumps(shown("r2"))}, id=f"{later}-0")
    tail, feedback = Tail(streams), Feedback(PARAMS)
    assert tail.feed(feedback) == 12 and tail.exposures_at == f"{later}-0"
    assert counts(feedback)[0] == 1


def test_the_job_writes_a_row_per_slot_and_the_rates(
    streams: Redis,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy("params.yaml", tmp_path)
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", redis_url)
    bought = event("purchase_completed", "b", NOON + 5 * MINUTE, price=7.5)
    lists = [shown("r1"), shown("r2", unit="u2") | {"tail": True, "propensity": 0.05}]
    publish(streams, lists, [click("r1", "b"), bought])
    assert job.main(json_output=True) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["arm"], told["visitors"], told["ctr"], told["revenue_per_visitor"]) == (
        "champion",
        2,
        1 / 6,
        3.75,
    )
    slots = pq.read_table(tmp_path / "data/feedback/slots.parquet").to_pylist()
    assert [(row["request_id"], row["slot"], row["item_id"]) for row in slots[:3]] == [
        ("r1", 0, "a"),
        ("r1", 1, "b"),
        ("r1", 2, "c"),
    ]
    assert [row["revenue"] for row in slots] == [0.0, 7.5, 0.0, 0.0, 0.0, 0.0]
    assert [row["propensity"] for row in slots] == [1.0, 1.0, 1.0, 1.0, 1.0, 0.05]
    assert [row["clicked_ts"] is None for row in slots] == [True, False, True, True, True, True]
    metrics = pq.read_table(tmp_path / "data/feedback/metrics.parquet").to_pylist()
    assert [(m["purchases"], m["conversion"]) for m in metrics] == [(1, 0.5)]
    assert (tmp_path / "data/feedback/metrics.svg").read_text().lstrip().startswith("<?xml")


def test_the_params_of_the_project_are_those_of_the_design() -> None:
    assert load("feedback", FeedbackParams) == PARAMS
