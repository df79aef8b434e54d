"""Events at the door: the good are in the stream once, the bad are named, nothing is lost unsaid."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from shops.storefront import Shop, make_home, metric, open_shop

from feature_repo.eventlog import keys
from feature_repo.eventlog.keys import APPLIED, GROUPS, SEEN, applied_field, partition_of, stream_key
from feature_repo.events import SCHEMA
from feature_repo.online.changes import APPLIED_TS

VIEW = {"type": "product_viewed", "session_id": "s1", "item_id": "item-1"}
HOME = partition_of("s1", 4)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def shop(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as opened:
        yield opened


def stream(shop: Shop) -> list[dict[str, Any]]:
    """What stands in the log, partition by partition."""
    found = [one for p in range(4) for one in shop.redis.xrange(stream_key(p))]
    return [orjson.loads(fields[b"event"]) for _, fields in found]


def post(shop: Shop, *events: Any, path: str = "/v1/events") -> dict[str, Any]:
    response = shop.post(path, {"events": list(events)})
    assert response.status_code == (202 if response.json()["accepted"] else 422), response.text
    found: dict[str, Any] = response.json()
    return found


def test_a_good_event_is_in_the_stream_as_data_raw_would_have_it(shop: Shop) -> None:
    before = time.time_ns() // 1000
    happened = before // 1_000_000 * 1_000_000 - 3_600_000_000
    written = datetime.fromtimestamp(happened / 1e6, timezone(timedelta(hours=1))).isoformat()
    event = {**VIEW, "event_id": "e1", "event_ts": written, "price": 3, "user_id": None}
    assert post(shop, event) == {"accepted": 1, "duplicates": 0, "rejected": []}
    (stored,) = stream(shop)
    assert set(stored) == set(SCHEMA.names)
    assert stored["event_ts"] == happened and stored["event_id"] == "e1"
    assert before <= stored["created_ts"] <= time.time_ns() // 1000
    assert stored["consent"] is True and stored["user_id"] is None and stored["price"] == 3


def test_ts_is_another_name_and_without_either_the_event_is_now(shop: Shop) -> None:
    happened = time.time_ns() // 1000 - 86_400_000_000
    post(shop, {**VIEW, "ts": happened}, VIEW)
    first, second = stream(shop)
    assert first["event_ts"] == happened
    assert abs(second["event_ts"] - time.time_ns() // 1000) < 10_000_000
    assert first["event_id"] != second["event_id"]  # made here, so two events


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "viewed"}, "type: 'viewed' is not allowed"),
        ({"type": None}, "type: None"),
        ({"item_id": None}, "item_id: None"),
        ({"item_id": ["a"]}, "item_id"),
        ({"session_id": None}, "session_id: None"),
        ({"session_id": "a\u0000"}, "session_id"),
        ({"event_id": ""}, "event_id: ''"),
        ({"event_id": 5}, "event_id: 5"),
        ({"event_ts": "yesterday"}, "event_ts: 'yesterday'"),
        ({"event_ts": 10**30}, "event_ts"),
        ({"event_ts": 1.5}, "event_ts: 1.5"),
        ({"event_ts": True}, "event_ts: True"),
        ({"event_ts": "2026-01-31T12:00:00"}, "event_ts"),
        ({"event_ts": "2099-01-01T00:00:00Z"}, "event_ts"),
        ({"event_ts": 1_769_857_200_000_000, "ts": 1_769_857_200_000_000}, "ts"),
        ({"created_ts": 1_769_857_200_000_000}, "created_ts"),
        ({"price": -1}, "price: -1"),
        ({"price": "3"}, "price: '3'"),
        ({"position": 0}, "position: 0"),
        ({"slot": True}, "slot: True"),
        ({"quantity": 1.0}, "quantity: 1.0"),
        ({"consent": "yes"}, "consent: 'yes'"),
        ({"colour": "red"}, "colour: 'red'"),
    ],
)
def test_a_bad_event_is_rejected_by_name_and_its_neighbours_are_kept(
    shop: Shop, change: dict[str, Any], said: str
) -> None:
    answer = post(shop, VIEW, {**VIEW, "event_id": "bad", **change}, VIEW)
    (rejected,) = answer["rejected"]
    assert answer["accepted"] == 2 and len(stream(shop)) == 2
    assert rejected["index"] == 1 and rejected["error"].startswith(said)


@pytest.mark.parametrize("raw", [None, 3, "x", [], True, 1.5])
def test_an_event_that_is_no_object_is_rejected(shop: Shop, raw: object) -> None:
    answer = post(shop, raw)
    assert answer["rejected"][0]["event_id"] is None and "an object" in answer["rejected"][0]["error"]


def test_a_resend_counts_as_accepted_and_is_written_once(shop: Shop) -> None:
    event = {**VIEW, "event_id": "e1"}
    assert post(shop, event, {**event}) == {"accepted": 2, "duplicates": 1, "rejected": []}
    assert post(shop, event)["duplicates"] == 1
    assert len(stream(shop)) == 1
    (mark,) = shop.redis.keys(f"{SEEN}*")
    assert 0 < shop.redis.ttl(mark) <= 86_400


def test_clients_that_send_the_same_at_once_write_it_once(shop: Shop) -> None:
    events = [{**VIEW, "event_id": f"e{i}"} for i in range(300)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: post(shop, *events), range(4)))
    assert sum(a["accepted"] - a["duplicates"] for a in answers) == 300
    assert sorted(e["event_id"] for e in stream(shop)) == sorted(e["event_id"] for e in events)


def test_the_order_of_a_post_is_the_order_of_the_stream(shop: Shop) -> None:
    post(shop, *({**VIEW, "event_id": f"e{i}"} for i in range(450)))
    assert [e["event_id"] for e in stream(shop)] == [f"e{i}" for i in range(450)]


def test_wait_answers_when_the_consumer_has_come_past_the_events(shop: Shop) -> None:
    def consume() -> None:
        found: list[Any] = []
        while not found:
            found = shop.redis.xrange(stream_key(HOME))
        for group in GROUPS:
            time.sleep(0.1)
            shop.redis.hset(APPLIED, applied_field(group, HOME), found[-1][0])

    consumer = threading.Thread(target=consume)
    consumer.start()
    started = time.monotonic()
    answer = post(shop, {**VIEW, "event_id": "e1"}, path="/v1/events?wait=1")
    consumer.join()
    assert answer["applied"] is True and time.monotonic() - started >= 0.2
    assert (
        post(shop, {**VIEW, "event_id": "e1"}, path="/v1/events?wait=1")["applied"] is True
    )  # the resend too


def test_wait_for_events_that_were_all_rejected_does_not_wait(shop: Shop) -> None:
    assert post(shop, {}, path="/v1/events?wait=1")["applied"] is True


def test_an_event_goes_to_the_partition_of_its_visit_whoever_is_logged_in(shop: Shop) -> None:
    other = next(f"s{i}" for i in range(9) if partition_of(f"s{i}", 4) != HOME)
    post(shop, VIEW, {**VIEW, "user_id": "u7"}, {**VIEW, "user_id": "u7", "session_id": other})
    assert len(shop.redis.xrange(stream_key(HOME))) == 2
    assert len(shop.redis.xrange(stream_key(partition_of(other, 4)))) == 1


def test_a_log_that_is_too_far_ahead_takes_nothing_and_says_when_to_come_back(shop: Shop) -> None:
    writer = shop.client.app.state.desk.ingress.writer  # type: ignore[attr-defined]
    writer._params = replace(writer._params, max_backlog=250)
    events = [{**VIEW, "event_id": f"e{i}", "session_id": f"s{i}"} for i in range(700)]
    assert post(shop, *events[:300])["accepted"] == 300
    response = shop.post("/v1/events", {"events": events})
    assert response.status_code == 503 and response.headers["retry-after"] == "1"
    assert response.json()["error"]["reason"] == "300 events wait to be applied, more than 250"
    assert len(stream(shop)) == 300
    for p in range(4):  # the slower group counts
        position = shop.redis.xrevrange(stream_key(p), count=1)[0][0]
        shop.redis.hset(APPLIED, applied_field("visitors", p), position)
    assert shop.post("/v1/events", {"events": events}).status_code == 503
    for p in range(3):
        position = shop.redis.xrevrange(stream_key(p), count=1)[0][0]
        shop.redis.hset(APPLIED, applied_field("items", p), position)
    assert post(shop, *events) == {"accepted": 700, "duplicates": 300, "rejected": []}


def test_the_lag_of_both_groups_is_measured(shop: Shop) -> None:
    post(shop, *({**VIEW, "event_id": f"e{i}", "session_id": f"s{i}"} for i in range(40)))
    ahead = shop.redis.xrevrange(stream_key(HOME), count=1)[0][0]
    shop.redis.hset(APPLIED, applied_field("visitors", HOME), ahead)
    time.sleep(0.02)
    shop.run(shop.client.app.state.desk.ingress.publish_lag)  # type: ignore[attr-defined]
    done = shop.redis.xlen(stream_key(HOME))
    assert metric("endcap_stream_behind_events", group="items") == 40
    assert metric("endcap_stream_behind_events", group="visitors") == 40 - done
    assert 0.02 <= metric("endcap_stream_behind_seconds", group="items") < 10
    for p in range(4):
        shop.redis.xtrim(stream_key(p), maxlen=0)  # what was trimmed is not waited for
    shop.run(shop.client.app.state.desk.ingress.publish_lag)  # type: ignore[attr-defined]
    assert metric("endcap_stream_behind_events", group="items") == 0
    assert metric("endcap_stream_behind_seconds", group="items") == 0


def test_without_redis_nothing_is_pretended(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: object, **__: object) -> None:
        raise redis.ConnectionError("refused")

    monkeypatch.setattr(shop.client.app.state.desk.ingress.writer, "_admit", down)  # type: ignore[attr-defined]
    response = shop.post("/v1/events", {"events": [VIEW]})
    assert response.status_code == 503 and response.headers["retry-after"] == "1"
    assert "cannot be stored" in response.json()["error"]["reason"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "events"),
        ({"events": None}, "events"),
        ({"events": {}}, "events"),
        ({"events": []}, "events"),
        ({"events": [VIEW] * 1001}, "events"),
        ({"events": [VIEW], "wait": 1}, "wait"),
    ],
)
def test_a_body_around_the_events_that_is_wrong_is_refused(shop: Shop, body: object, field: str) -> None:
    response = shop.post("/v1/events", body)
    assert response.status_code == 422 and response.json()["error"]["field"] == field
    assert stream(shop) == []


def test_a_device_that_stamps_2015_is_told_so_and_the_others_of_the_batch_stay(shop: Shop) -> None:
    stamped = {**VIEW, "event_ts": "2015-06-01T10:00:00Z"}
    found = post(shop, stamped, VIEW)
    assert found["accepted"] == 1
    (refused,) = found["rejected"]
    assert refused["index"] == 0 and "event_ts: '2015-06-01T10:00:00+00:00'" in refused["error"]
    assert "sent_at" in refused["error"] and "leave event_ts out" in refused["error"]
    now = time.time_ns() // 1000
    edge = now - 7 * 86_400_000_000
    assert post(shop, {**VIEW, "ts": edge + 60_000_000})["accepted"] == 1
    assert post(shop, {**VIEW, "ts": edge - 60_000_000})["accepted"] == 0


def test_sent_at_sets_a_device_right_whose_clock_is_years_off(shop: Shop) -> None:
    events = [{**VIEW, "event_ts": f"2015-06-01T10:00:0{second}Z"} for second in (0, 4)]
    answer = shop.post("/v1/events", {"events": events, "sent_at": "2015-06-01T10:00:10Z"})
    assert answer.status_code == 202 and answer.json()["accepted"] == 2
    first, second = sorted(one["event_ts"] for one in stream(shop))
    assert second - first == 4_000_000
    assert 0 <= time.time_ns() // 1000 - first - 10_000_000 < 10_000_000
    wrong = shop.post("/v1/events", {"events": events, "sent_at": "yesterday"})
    assert wrong.status_code == 422 and wrong.json()["error"]["field"] == "sent_at"


def test_a_clock_that_is_off_by_seconds_is_left_alone(shop: Shop) -> None:
    now = time.time_ns() // 1000
    body = {"events": [{**VIEW, "ts": now - 5_000_000}], "sent_at": now - 90_000_000}
    assert shop.post("/v1/events", body).status_code == 202
    assert stream(shop)[0]["event_ts"] == now - 5_000_000


def test_in_a_replay_one_event_stamped_today_moves_nothing(
    home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    march = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp()) * 1_000_000
    with open_shop(*home, redis_url, replay=True) as shop:
        shop.redis.set(APPLIED_TS, march)
        found = post(shop, {**VIEW, "ts": time.time_ns() // 1000}, {**VIEW, "ts": march + 3_600_000_000})
        assert found["accepted"] == 1 and "event_ts" in found["rejected"][0]["error"]
        body = {"events": [{**VIEW, "ts": time.time_ns() // 1000}], "sent_at": time.time_ns() // 1000}
        assert shop.post("/v1/events", body).status_code == 202  # a browser's own clock, set to the shop's
        assert max(one["event_ts"] for one in stream(shop)) <= march + 3_600_000_000


def test_marks_have_one_length_whatever_the_event() -> None:
    short, long = ({"event_id": text, "session_id": text} for text in ("a", "é" * 256))
    assert len(keys.seen_key(short)) == len(keys.seen_key(long)) == len(SEEN) + 32


def test_a_stranger_who_took_an_event_id_first_does_not_cost_the_shop_its_purchase(shop: Shop) -> None:
    purchase = {**VIEW, "type": "purchase_completed", "event_id": "order-1001", "price": 12.5}
    squats = [
        {**VIEW, "event_id": "order-1001", "session_id": "stranger"},
        {**purchase, "session_id": "stranger"},
        {**purchase, "item_id": "item-2"},
        {**purchase, "consent": False},
    ]
    assert post(shop, *squats)["duplicates"] == 0
    assert post(shop, purchase) == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert post(shop, purchase)["duplicates"] == 1
    assert sum(e["session_id"] == "s1" and e["price"] == 12.5 and e["consent"] for e in stream(shop)) == 2
