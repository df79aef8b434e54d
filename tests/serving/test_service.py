"""The service as processes: what only shows over real HTTP, with a real Redis that may be gone."""

from __future__ import annotations

import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops import tiny_bundle
from shops.storefront import HERO, SECRET, act, items, release_of, session_row

from feature_repo.eventlog.keys import APPLIED, GROUPS, applied_field, partition_of, stream_key, stream_keys
from feature_repo.persons.privacy import persons
from serving.release import state

if TYPE_CHECKING:
    from shops.service import Service

pytest_plugins = ("shops.service",)

VIEW = {"type": "product_viewed", "session_id": "s1", "item_id": "item-1"}


def ask(service: Service, **fields: Any) -> dict[str, Any]:
    key = SECRET if "debug" in fields else None
    response = httpx.post(f"{service.url}/v1/recommend", json={**HERO, **fields}, headers=key, timeout=10)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_the_operational_routes_answer(service: Service) -> None:
    with service.client() as client:
        assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
        assert client.get("/docs.json").json()["openapi"]
        ask(service)
        metrics = client.get("/metrics").text
    assert 'endcap_answers_total{arm="champion",served_from="live",surface="homepage_hero"}' in metrics
    assert "endcap_answer_seconds_bucket" in metrics and "endcap_rollout_version" in metrics


def test_stored_rows_and_the_catalogue_are_read_through_feast(service: Service) -> None:
    cold = ask(service, session_id="warm")
    row = session_row(("product_viewed", "item-3"), ("add_to_cart", "item-8"), session="warm")
    service.store("session_context", persons().of("warm"), row["at"], row)
    warm = ask(service, session_id="warm", debug=True)
    assert cold["feature_age_ms"] is None and warm["feature_age_ms"] > 0 and warm["degraded"] is None
    assert items(warm) != items(cold) and "item-8" not in items(warm)
    assert warm["debug"]["removed"]["item-8"] == "in the cart"
    assert not any(item.endswith("9") for item in items(warm) + items(cold))  # out of stock: the catalogue's


def test_wait_outlasts_the_servers_own_timeout(service: Service) -> None:
    answers: list[Any] = []

    def post() -> None:
        body = {"events": [{**VIEW, "event_id": "slow"}]}
        answers.append(httpx.post(f"{service.url}/v1/events?wait=1", json=body, timeout=15))

    client = threading.Thread(target=post)
    client.start()
    with service.redis() as store:
        time.sleep(1.6)  # traffic_timeout_s is 1
        assert not answers
        home = partition_of(persons().of(VIEW["session_id"]), 4)
        newest = store.xrevrange(stream_key(home), count=1)[0][0]
        store.hset(APPLIED, mapping={applied_field(group, home): newest for group in GROUPS})
    client.join()
    assert answers[0].status_code == 202 and answers[0].json()["applied"] is True


def test_events_are_taken_at_thousands_a_second_in_batches(service: Service) -> None:
    def post(batch: int) -> int:
        events = [{**VIEW, "event_id": f"bulk-{batch}-{i}"} for i in range(500)]
        response = httpx.post(f"{service.url}/v1/events", json={"events": events}, headers=SECRET, timeout=15)
        return int(response.json()["accepted"])

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(post, range(6))) == 3000
    with service.redis() as store:
        entries = [one for key in stream_keys(4) for one in store.xrange(key)]
    ids = {orjson.loads(fields[b"event"])["event_id"] for _, fields in entries}
    assert {f"bulk-{b}-{i}" for b in range(6) for i in range(500)} <= ids


def test_every_answer_reaches_the_exposure_log(service: Service) -> None:
    asked = {ask(service)["request_id"] for _ in range(20)}
    deadline = time.monotonic() + 5
    with service.redis() as store:
        while True:
            entries = store.xrange("endcap:exposures")
            logged = {orjson.loads(fields[b"exposure"])["request_id"] for _, fields in entries}
            if asked <= logged or time.monotonic() > deadline:
                break
            time.sleep(0.05)
    assert asked <= logged


def test_a_body_of_2_mib_is_a_413_and_the_connection_is_good_for_the_next(service: Service) -> None:
    for mib in (2, 2, 2, 4, 4, 7):  # each on a connection of its own: the client has sent all before it reads
        with service.client() as client:
            response = client.post("/v1/recommend", content=b'{"a": "' + b"x" * mib * 2**20 + b'"}')
            assert response.status_code == 413 and response.json()["error"]["field"] == "body"
            assert client.post("/v1/recommend", json=HERO).status_code == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",  # and then nothing
        b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/recommend?surface=%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_broken_http_harms_nobody(service: Service, raw: bytes) -> None:
    port = int(service.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
        peer.sendall(raw)
        peer.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while part := peer.recv(65_536):
                answer += part
        except ConnectionResetError:
            pass
    assert not answer.startswith(b"HTTP/1.1 5")
    assert len(ask(service)["items"]) == 12


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(["surface", "user_id", "items", "cart", "context", "limit", "as_of", "events"])


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=st.binary(max_size=100) | st.dictionaries(fields, values, max_size=5),
    route=st.sampled_from(["/v1/recommend", "/v1/rank", "/v1/events", "/v1/events?wait=1"]),
)
def test_no_body_is_a_5xx(service: Service, body: Any, route: str) -> None:
    import json

    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.post(service.url + route, content=content, headers=SECRET, timeout=15)
    assert response.status_code in (200, 202, 400, 422), (route, content, response.text)


def test_a_canary_begins_and_is_rolled_back_without_a_failed_request(service: Service) -> None:
    other = tiny_bundle.make(service.home, seed=1)
    arms: list[str] = []
    stop = threading.Event()

    def shoppers() -> None:
        with service.client() as client:
            for i in range(10_000):
                if stop.is_set():
                    return
                answer = client.post("/v1/recommend", json={**HERO, "user_id": f"U{i}"}).json()
                assert len(answer["items"]) == 12 and answer["served_from"] == "live"
                arms.append(answer["arm"])
                time.sleep(0.005)  # the loading thread shares the interpreter with the answers

    def seen(arm: str, in_last: int) -> bool:
        return len(arms) > in_last and arm in arms[-in_last:]

    def within(seconds: float, condition: Any) -> float:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, arms[-50:]
            time.sleep(0.02)
        return time.monotonic() - began

    with ThreadPoolExecutor(1) as pool, service.redis() as store:
        traffic = pool.submit(shoppers)
        try:
            installed = state.read(store)
            assert installed is not None
            canary = state.start_canary(store, installed, release_of(service.home, other), 50, "trial", act())
            within(90, lambda: seen("challenger", 20))  # the bundle's trees are compiled first
            state.rollback(store, canary, act())
            at = len(arms)
            within(5, lambda: len(arms) > at + 40 and not seen("challenger", 40))
        finally:
            stop.set()
        traffic.result(timeout=30)
    assert {"champion", "challenger"} == set(arms)


def test_with_redis_hung_lists_are_full_and_quick_and_writes_are_refused(service: Service) -> None:
    service.redis_process.send_signal(signal.SIGSTOP)
    try:
        answers = [ask(service) for _ in range(20)]
        written = httpx.post(f"{service.url}/v1/events", json={"events": [VIEW]}, timeout=10)
    finally:
        service.redis_process.send_signal(signal.SIGCONT)
    assert {(a["degraded"], a["served_from"], len(a["items"])) for a in answers} == {
        ("features_unavailable", "live", 12)
    }
    assert sorted(a["took_ms"] for a in answers)[10] < 50  # most do not even wait for the deadline
    assert written.status_code == 503 and written.headers["retry-after"]
    deadline = time.monotonic() + 5
    while ask(service)["degraded"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ask(service)["degraded"] is None


def test_a_killed_worker_is_replaced(service: Service) -> None:
    (worker,) = service.workers()
    worker.kill()
    deadline = time.monotonic() + 30
    while worker.pid in {p.pid for p in service.workers()}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    service.wait_until_ready()
    assert len(ask(service)["items"]) == 12
