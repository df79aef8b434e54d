"""What counts for nothing is stored with its reason, and moves neither an item's counts nor a canary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis
from shops.storefront import Shop, ask, make_home, metric, open_shop

from feature_repo.eventlog.keys import ITEMS as ITEM_GROUP
from feature_repo.eventlog.keys import VISITORS, stream_key
from feature_repo.params import load
from monitoring.experiment.attribution import Feedback, FeedbackParams
from pipelines.stream.apply import FOLDS_OF, Arrival, Entity, Held, apply, parse, unstored, wanted


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def shop(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as opened:
        yield opened


def told(shop: Shop, *events: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = shop.client.post("/v1/events", json={"events": list(events)}, headers=headers)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def clicked(answer: dict[str, Any], at: int = 0, **more: Any) -> dict[str, Any]:
    item = answer["items"][at]["item_id"]
    return {"type": "click", "session_id": "s1", "request_id": answer["request_id"], "item_id": item, **more}


def logged(redis: Redis) -> list[bytes]:
    entries: list[Any] = [entry for p in range(4) for _, entry in redis.xrange(stream_key(p))]  # type: ignore[union-attr]
    return [entry[b"event"] for entry in entries]


def counts(raws: list[bytes], item: str) -> dict[str, Any]:
    """The item's row after the stream applied these entries."""
    folds = FOLDS_OF[ITEM_GROUP]
    states: dict[Entity, Held] = {}
    events = [one.event for one in map(parse, raws) if isinstance(one, Arrival)]
    states |= {entity: unstored(entity) for entity in wanted(folds, states, events)}
    apply(folds, states, events)
    held = states.get((folds[0].name, item))
    return dict(held.state) if held else {}


def test_a_click_on_a_list_counts_once_and_a_resend_of_it_is_no_repetition(shop: Shop) -> None:
    answer = ask(shop)
    first = clicked(answer, event_id="c1")
    assert "uncounted" not in told(shop, first)
    assert told(shop, first) == {"accepted": 1, "duplicates": 1, "rejected": []}
    assert told(shop, clicked(answer, event_id="c2"))["uncounted"] == {"repeated": 1}
    assert "uncounted" not in told(shop, clicked(answer, 1, event_id="c3"))
    item = answer["items"][0]["item_id"]
    assert counts(logged(shop.redis), item)["clicks_7d"] == pytest.approx(1.0, abs=1e-3)


def test_each_reason_is_answered_metered_and_written_on_the_event(shop: Shop) -> None:
    answer = ask(shop)
    bent = answer["request_id"][:-4] + "AAAA"
    wrong = {
        "foreign": clicked(answer, session_id="s2"),
        "not_shown": {**clicked(answer), "item_id": "item-of-no-list"},
        "forged": {**clicked(answer), "request_id": bent},
        "unsigned": {**clicked(answer), "request_id": "0" * 32, "type": "impression"},
    }
    before = {why: metric("endcap_events_uncounted_total", reason=why) for why in wrong}
    assert told(shop, *wrong.values())["uncounted"] == dict.fromkeys(wrong, 1)
    for why in wrong:
        assert metric("endcap_events_uncounted_total", reason=why) == before[why] + 1
    entries = [orjson.loads(raw) for raw in logged(shop.redis)]
    assert sorted(entry["uncounted"] for entry in entries) == sorted(wrong)
    assert not counts(logged(shop.redis), answer["items"][0]["item_id"])


def test_nobody_says_himself_what_counts(shop: Shop) -> None:
    event = {"type": "product_viewed", "session_id": "s1", "item_id": "item-1", "uncounted": None}
    posted = shop.client.post("/v1/events", json={"events": [{**event, "uncounted": "late"}]})
    assert posted.status_code == 422 and "uncounted: 'late' is not allowed" in posted.text


def test_a_visit_counts_as_often_as_people_do_it(shop: Shop) -> None:
    view = {"type": "product_viewed", "session_id": "s1", "item_id": "item-1"}
    assert told(shop, *[view] * 20)["uncounted"] == {"faster_than_people": 14}
    assert counts(logged(shop.redis), "item-1")["views_7d"] == pytest.approx(6.0, abs=1e-3)
    visitors = [one for one in map(parse, logged(shop.redis)) if isinstance(one, Arrival)]
    assert len(visitors) == 20 and all(FOLDS_OF[VISITORS][1].reads(one.event) for one in visitors)


def test_an_uncounted_click_is_no_evidence_for_the_guard() -> None:
    shown = {"request_id": "r", "arm": "challenger", "surface": "pdp_fbt", "ts": 10**15, "unit": "s1"}
    shown |= {"session_id": "s1", "items": ["a"], "bundle": "b"}
    click = {"type": "click", "event_id": "e", "event_ts": 10**15 + 1, "request_id": "r", "item_id": "a"}
    for reason, clicks in ((None, 1), ("forged", 0)):
        feedback = Feedback(load("feedback", FeedbackParams))
        feedback.update([shown], [{**click, "session_id": "s1"} | ({"uncounted": reason} if reason else {})])
        assert feedback.statistics("challenger").clicks == clicks
        assert feedback.crowd("challenger").visiting == clicks


def test_what_is_held_of_it_ends(shop: Shop) -> None:
    told(shop, clicked(ask(shop)), {"type": "product_viewed", "session_id": "s1", "item_id": "item-1"})
    keys = [key for name in ("counted", "rate") for key in shop.redis.keys(f"endcap:{name}:*")]
    lives = [int(shop.redis.ttl(key)) for key in keys]  # -1: for ever, -2: it has drained
    assert len(keys) >= 3 and all(life != -1 and life <= 7200 for life in lives)
