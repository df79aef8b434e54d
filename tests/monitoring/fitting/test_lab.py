"""The rule lab over logged answers: what held is made again exactly, what a draft does is told by rule."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis
from shops.rules import IDS, ITEMS, NOW, document, steering
from shops.storefront import StillFeatures
from shops.tiny_bundle import make

from feature_repo.clock import DAY_US, instant
from feature_repo.eventlog.lua import append
from monitoring.fitting import lab
from monitoring.fitting.reliability import PRIOR, Fates, clicked, reliability
from monitoring.fitting.relisted import Answers
from monitoring.fitting.showroom import Showroom
from pipelines.protocol.served import _batch
from pipelines.rules import lab_table, margin
from serving.live.exposures import SERVED, decode, encode, sample
from serving.pipeline import recommend, visitor_of
from serving.release import bundle
from serving.stages.odds import Chances, Profit
from serving.stages.steering import UNSTEERED
from serving.types import Answer, Request

HELD = {"pin": {"items": ["item-11"], "slots": [2]}}


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Showroom:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    release = bundle.load(make(tmp_path, 60))
    features: Any = StillFeatures(ITEMS)
    return Showroom(release, features, {item: f"Title [of] {item}" for item in IDS})


def logged(
    redis: Redis,
    room: Showroom,
    *held: dict[str, Any],
    answers: int = 4,
    surface: str = "homepage_hero",
    release: str = "",
) -> dict[str, Any]:
    """Answers under the rules that held go to the log; the last one's meta."""
    meta: dict[str, Any] = {}
    digest = release or room.bundle.digest
    for n in range(answers):
        beside = (f"item-{n % 9 + 20}",) if surface == "pdp_fbt" else ()
        request = Request(surface, session_id=f"s{n}", items=beside)
        asked = steering(*held, request=request)
        served = recommend(request, room.bundle, visitor_of(request, NOW, None, None), ITEMS, asked)
        answer = Answer(
            f"{surface} {n}", request.surface, served.slots, "champion", digest, "live", None, None, 1.0
        )
        meta = sample(request, answer, NOW, served, ITEMS, rules=1)
        redis.xadd(SERVED, encode(meta, served.ranked.matrix))
    return meta


def shown_and_clicked(redis: Redis, answers: list[Any]) -> None:
    """Two products of each list beside a product are clicked, none of the homepage's."""
    for at, answer in enumerate(answers):
        who, question = f"u{at}", answer.request_id
        told = {"request_id": question, "ts": NOW, "unit": who, "session_id": who, "arm": "champion"}
        told |= {"surface": answer.request.surface, "items": answer.shown}
        redis.xadd("endcap:exposures", {"exposure": orjson.dumps(told)})
        for item in answer.shown[: 2 if answer.request.surface == "pdp_fbt" else 0]:
            click = {"event_id": f"{at} {item}", "event_ts": NOW + 1, "type": "click", "item_id": item}
            append(redis, 0, orjson.dumps(click | {"session_id": who, "request_id": question}))


def test_what_held_is_made_again_and_a_draft_is_told_rule_by_rule(redis_url: str, room: Showroom) -> None:
    redis = Redis.from_url(redis_url)
    meta = logged(redis, room, HELD)
    best = next(item for item in meta["judged"]["shown"] if item != "item-11")
    draft = document(
        {"block": {"where": {"item_id": [best]}}},
        {"block": {"where": {"item_id": ["item-9"]}}},  # sold out
        {"block": {"where": {"brand": "brand 0"}}, "when": {"surface": ["pdp_fbt"]}},
    )
    found = lab.run(redis, room, document(HELD), draft, NOW, 100)
    assert (found["answers"], found["unusable"], found["agreement"]) == (4, 0, 1.0)
    rules = {one["rule"]: one for one in found["rules"]}
    assert (rules["r0"]["held"], rules["r0"]["changed"], rules["r0"]["brought"]) == (4, 4, 4)
    assert rules["r0"]["loses"][0]["item_id"] == best
    assert [(rules[name]["held"], rules[name]["dead"]) for name in ("r1", "r2")] == [(4, True), (0, True)]
    assert {"item_id": best, "title": f"Title [of] {best}", "slots": -4} in found["lose"]
    lab_table.show(found)


def test_a_campaign_to_come_is_tried_as_of_its_beginning_and_another_release_left_out(
    redis_url: str, room: Showroom
) -> None:
    redis = Redis.from_url(redis_url)
    logged(redis, room, release="another")
    logged(redis, room)
    opening = instant(NOW + DAY_US).isoformat()
    draft = document(HELD | {"when": {"from": opening}})
    found = lab.run(redis, room, document(), draft, NOW, 100)
    assert (found["answers"], found["unusable"], found["later"]) == (4, 4, 4)
    assert (found["rules"][0]["held"], found["rules"][0]["changed"], found["agreement"]) == (4, 4, 1.0)
    as_it_stands = lab.run(redis, room, draft, draft, NOW, 100)
    assert (as_it_stands["rules"][0]["held"], as_it_stands["later"]) == (0, 0)


def test_each_rule_is_told_what_it_does_to_clicks_margin_and_coverage(redis_url: str, room: Showroom) -> None:
    redis = Redis.from_url(redis_url)
    told = Profit(0.0, Chances(odds=(-9.0, 9.0), chance=(0.01, 0.9)))
    room = replace(room, bundle=replace(room.bundle, profit=told))
    shown = logged(redis, room)["judged"]["shown"]
    sold_out = {"block": {"where": {"item_id": ["item-9"]}}}
    draft = document({"block": {"where": {"item_id": shown[:2]}}}, sold_out)
    found = lab.run(redis, room, document(), draft, NOW, 100)
    worse, idle = (one["expected"] for one in found["rules"])
    for name in ("ctr_change", "margin_per_impression_change"):
        assert worse[name] == pytest.approx(found["expected"][name])
    mean, low, high = worse["margin_per_impression_change"]
    assert low <= mean <= high and mean != 0
    assert idle["ctr_change"] == idle["margin_per_impression_change"] == [0.0, 0.0, 0.0]
    assert found["rules"][1]["products"] == [found["products"][1]] * 2 and found["catalogue"] == len(ITEMS)
    lab_table.show(found)


def test_an_unchanged_draft_changes_nothing(redis_url: str, room: Showroom) -> None:
    redis = Redis.from_url(redis_url)
    logged(redis, room, HELD)
    found = lab.run(redis, room, document(HELD), document(HELD), NOW, 100)
    assert (found["displaced"], found["gain"], found["lose"]) == (0, [], [])


def test_a_list_that_a_surface_laid_out_by_its_own_filters_is_made_again(
    redis_url: str, room: Showroom
) -> None:
    redis = Redis.from_url(redis_url)
    meta = logged(redis, room, surface="pdp_fbt")
    draft = document({"block": {"where": {"item_id": [meta["judged"]["shown"][0]]}}})
    found = lab.run(redis, room, document(), draft, NOW, 100)
    assert found["agreement"] == 1.0
    assert found["rules"][0]["changed"] >= 1


def test_chances_are_held_against_what_was_clicked_and_corrected_by_surface(
    redis_url: str, room: Showroom
) -> None:
    redis, n = Redis.from_url(redis_url), 40
    for surface in ("homepage_hero", "pdp_fbt"):
        logged(redis, room, answers=n, surface=surface)
    entries: Any = redis.xrange(SERVED)
    answers = list(Answers(entries, room))
    shown_and_clicked(redis, answers)
    flat = Chances(odds=(-99.0, 99.0), chance=(1 / 12, 1 / 12))  # one click a list is expected
    found = reliability(answers, clicked(redis, entries), flat)
    assert found is not None and found["answers"] == 2 * n
    assert found["expected"] == pytest.approx(1 / 12, rel=0.02)
    rate, low, high = found["clicked"]
    assert rate == pytest.approx(1 / 12, rel=0.02) and low < rate < high
    assert found["factor"]["pdp_fbt"] == pytest.approx((2 * n + PRIOR) / (n + PRIOR), rel=0.02)
    assert found["factor"]["homepage_hero"] == pytest.approx(PRIOR / (n + PRIOR), rel=0.02)
    assert reliability(answers[:5], clicked(redis, entries), flat) is None


def test_who_looks_again_reads_on_and_keeps_the_newest_lists(
    redis_url: str, room: Showroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis: Any = Redis.from_url(redis_url)
    fates = Fates(redis)
    logged(redis, room, answers=3, surface="pdp_fbt")
    assert fates.look() == {}
    first, *later = Answers(redis.xrange(SERVED), room)
    shown_and_clicked(redis, [first])
    assert fates.look() == {first.request_id: frozenset(first.shown[:2])}
    shown_and_clicked(redis, later)
    assert fates.look() == clicked(redis, redis.xrange(SERVED)) and len(fates.look()) == 3
    monkeypatch.setattr("monitoring.fitting.reliability.KEPT", 2)
    logged(redis, room, answers=1)
    shown_and_clicked(redis, list(Answers(redis.xrange(SERVED), room))[-1:])
    assert len(fates.look()) == 2 and first.request_id not in fates.look()


def test_the_margins_picture_is_corrected_too_and_of_surfaces_that_the_weight_alone_orders(
    redis_url: str, room: Showroom
) -> None:
    redis, n = Redis.from_url(redis_url), 40
    flat = Chances(odds=(-99.0, 99.0), chance=(1 / 12, 1 / 12))
    room = replace(room, bundle=replace(room.bundle, profit=Profit(0.0, flat)))
    for surface in ("homepage_hero", "pdp_fbt"):
        logged(redis, room, answers=n, surface=surface)
    entries: Any = redis.xrange(SERVED)
    before = margin.traded(redis, room, (0.0, 1.0), 100, NOW)
    assert (before["answers"], before["crafted"], before["factor"]) == (n, n, {})
    assert [one["ctr"] for one in before["weights"]] == pytest.approx([1 / 12] * 2)
    assert before["weights"][0]["margin"] < before["weights"][1]["margin"]
    shown_and_clicked(redis, list(Answers(entries, room)))
    after = margin.traded(redis, room, (0.0,), 100, NOW)
    assert after["weights"][0]["ctr"] == pytest.approx(PRIOR / (n + PRIOR) / 12, rel=0.02)
    pdp = next(one for one in Answers(entries, room) if one.crafted)
    weighed = Profit(1.0, Chances(odds=(-9.0, 9.0), chance=(0.01, 0.9)))
    assert pdp.list(room.bundle.diversify, UNSTEERED, weighed) == pdp.list(room.bundle.diversify, UNSTEERED)


def test_what_a_rule_pinned_is_in_no_training_row(redis_url: str, room: Showroom) -> None:
    redis = Redis.from_url(redis_url)
    meta = logged(redis, room, HELD)
    _, fields = redis.xrevrange(SERVED, count=1)[0]  # type: ignore[index]
    _, features = next(iter(decode([(b"1-0", fields)], Counter())))
    assert "item-11" in meta["items"]
    assert "item-11" not in _batch(meta, features).column("item_id").to_pylist()
