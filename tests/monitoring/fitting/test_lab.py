"""The rule lab over logged answers: what held is made again exactly, what a draft does is told by rule."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from shops.rules import IDS, ITEMS, NOW, document, steering
from shops.storefront import StillFeatures
from shops.tiny_bundle import make

from monitoring.fitting import lab
from monitoring.fitting.showroom import Showroom
from pipelines.protocol.served import _batch
from pipelines.rules import lab_table
from serving.live.exposures import SERVED, decode, encode, sample
from serving.pipeline import recommend, visitor_of
from serving.release import bundle
from serving.types import Answer, Request

HELD = {"pin": {"items": ["item-11"], "slots": [2]}}


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Showroom:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    release = bundle.load(make(tmp_path, 60))
    features: Any = StillFeatures(ITEMS)
    return Showroom(release, features, {item: f"Title [of] {item}" for item in IDS})


def logged(redis: Redis, room: Showroom, *held: dict[str, Any], answers: int = 4) -> dict[str, Any]:
    """Answers under the rules that held go to the log; the last one's meta."""
    meta: dict[str, Any] = {}
    for n in range(answers):
        request = Request("homepage_hero", session_id=f"s{n}")
        asked = steering(*held, request=request)
        served = recommend(request, room.bundle, visitor_of(request, NOW, None, None), ITEMS, asked)
        answer = Answer(f"r{n}", request.surface, served.slots, "champion", "b", "live", None, None, 1.0)
        meta = sample(request, answer, NOW, served, ITEMS, rules=1)
        redis.xadd(SERVED, encode(meta, served.ranked.matrix))
    return meta


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


def test_an_unchanged_draft_changes_nothing(redis_url: str, room: Showroom) -> None:
    redis = Redis.from_url(redis_url)
    logged(redis, room, HELD)
    found = lab.run(redis, room, document(HELD), document(HELD), NOW, 100)
    assert (found["displaced"], found["gain"], found["lose"]) == (0, [], [])


def test_what_a_rule_pinned_is_in_no_training_row(redis_url: str, room: Showroom) -> None:
    redis = Redis.from_url(redis_url)
    meta = logged(redis, room, HELD)
    _, fields = redis.xrevrange(SERVED, count=1)[0]  # type: ignore[index]
    _, features = next(iter(decode([(b"1-0", fields)], Counter())))
    assert "item-11" in meta["items"]
    assert "item-11" not in _batch(meta, features).column("item_id").to_pylist()
