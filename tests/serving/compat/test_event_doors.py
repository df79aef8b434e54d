"""Events of other systems at their doors: in the stream as ours, answered as theirs, each once."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from shops.storefront import Shop, make_home, metric, open_shop

from feature_repo.eventlog.keys import stream_key

HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)
US = int(HOUR_AGO.timestamp()) * 1_000_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def shop(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as opened:
        yield opened


def stream(shop: Shop) -> list[dict[str, Any]]:
    found = [one for p in range(4) for one in shop.redis.xrange(stream_key(p))]
    return [orjson.loads(fields[b"event"]) for _, fields in found]


def told(shop: Shop, *names: str) -> set[tuple[Any, ...]]:
    return {tuple(event[name] for name in names) for event in stream(shop)}


ORDER = {
    "client_id": "1.2",
    "user_id": "U1",
    "timestamp_micros": str(US),
    "events": [
        {
            "name": "purchase",
            "params": {
                "session_id": "77",
                "transaction_id": "T1",
                "currency": "EUR",
                "items": [
                    {"item_id": "item-1", "price": 9.99, "quantity": 2},
                    {"item_id": "item-2", "price": "5", "quantity": 1},
                ],
            },
        },
        {"name": "scroll", "params": {}},
    ],
}


def test_a_ga4_purchase_is_an_event_for_each_line_and_counts_once(shop: Shop) -> None:
    for _ in range(2):
        answer = shop.post("/compat/ga4/mp/collect?measurement_id=G-1&api_secret=s", ORDER)
        assert (answer.status_code, answer.content) == (204, b"")
    assert told(shop, "event_id", "item_id", "price", "quantity", "session_id", "user_id", "event_ts") == {
        ("purchase:T1:001", "item-1", 9.99, 2, "1.2.77", "U1", US),
        ("purchase:T1:002", "item-2", 5.0, 1, "1.2.77", "U1", US),
    }
    assert len(stream(shop)) == 2


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"events": 3}', b'{"a": 1, "a": 2}', b"x" * 2**21]
)
def test_ga4_never_tells_of_a_bad_body(shop: Shop, body: bytes) -> None:
    assert shop.post("/compat/ga4/mp/collect", body).status_code == 204
    assert stream(shop) == []


def test_what_is_not_known_is_dropped_and_counted(shop: Shop) -> None:
    before = metric("endcap_compat_events_total", system="ga4", outcome="unknown_event")
    shop.post("/compat/ga4/mp/collect", ORDER)
    assert metric("endcap_compat_events_total", system="ga4", outcome="unknown_event") == before + 1


VIEW = {
    "type": "track",
    "event": "Product Viewed",
    "messageId": "m1",
    "anonymousId": "a1",
    "timestamp": HOUR_AGO.isoformat(),
    "properties": {"product_id": "item-3", "sku": "S", "price": 18.99},
}


@pytest.mark.parametrize(("system", "said"), [("segment", b'{"success":true}'), ("rudderstack", b"OK")])
def test_a_segment_batch_counts_each_message_once(shop: Shop, system: str, said: bytes) -> None:
    batch = {"batch": [VIEW, VIEW, {"type": "identify", "userId": "u"}], "writeKey": "w"}
    for body in (batch, gzip.compress(orjson.dumps(batch))):
        packed = isinstance(body, bytes)
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"content-encoding": "gzip"} if packed else {}
        answer = shop.client.post(f"/compat/{system}/v1/batch", content=content, headers=headers)
        assert (answer.status_code, answer.content) == (200, said)
    assert told(shop, "event_id", "type", "item_id", "session_id", "price") == {
        ("m1", "product_viewed", "item-3", "a1", 18.99)
    }
    assert len(stream(shop)) == 1


def test_a_device_with_a_wrong_clock_is_set_right_by_what_it_shows(shop: Shop) -> None:
    years_ago = datetime(2015, 12, 12, 19, 11, tzinfo=UTC)
    call = {**VIEW, "timestamp": years_ago.isoformat()}
    sent = (years_ago + timedelta(seconds=30)).isoformat()
    shop.post("/compat/segment/v1/track", {**call, "sentAt": sent})
    (event,) = stream(shop)
    assert abs(event["event_ts"] + 30_000_000 - event["created_ts"]) < 5_000_000


def test_google_gets_back_what_it_sent_half_a_character_too(shop: Shop) -> None:
    event = b'{"eventType": "home-page-view", "visitorId": "v", "userInfo": {"userAgent": "\\ud83d"}}'
    answer = shop.post("/compat/google/v2/projects/p/userEvents:write", event)
    assert (answer.status_code, answer.json()) == (200, json.loads(event))


def test_metarank_and_gorse_are_answered_with_their_counts(shop: Shop) -> None:
    ms = str(US // 1000)
    ranking = {"event": "ranking", "id": "r1", "timestamp": ms, "user": "u", "session": "s"}
    ranking["items"] = [{"id": "item-1"}, {"id": "item-2"}]  # type: ignore[assignment]
    click = {"event": "interaction", "id": "c1", "ranking": "r1", "timestamp": ms, "user": "u"}
    click |= {"session": "s", "type": "click", "item": "item-2"}
    body = shop.post("/compat/metarank/feedback", [ranking, click, {"event": "user"}]).json()
    assert (body["accepted"], body["status"], body["updated"]) == (2, "ok", 0)
    assert told(shop, "type", "item_id", "position", "request_id", "session_id") == {
        ("impression", "item-1", 1, None, "s"),
        ("impression", "item-2", 2, None, "s"),
        ("click", "item-2", None, None, "s"),
        ("product_viewed", "item-2", None, None, "s"),
    }
    row = {"FeedbackType": "read", "UserId": "u", "ItemId": "i", "Timestamp": HOUR_AGO.isoformat()}
    answer = shop.client.put("/compat/gorse/api/feedback", json=[row, {**row, "FeedbackType": "sneeze"}])
    assert answer.json() == {"RowAffected": 1}
