"""Nothing that a client sends is a 500: it is refused by name, and the next client is served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shops.storefront import HERO, SECRET, Shop, make_home, open_shop

from feature_repo.events import SCHEMA, SURFACES, TYPES
from feature_repo.features.catalogue import SHOWN
from serving.http.requests import FIELDS

ROUTES = ("/v1/recommend", "/v1/rank", "/v1/page", "/v1/events")


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, redis_server: str, request: pytest.FixtureRequest
) -> Iterator[Shop]:
    patch = pytest.MonkeyPatch()
    home = make_home(tmp_path_factory.mktemp("home"))
    patch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_server) as opened:
        opened.redis.flushall()
        yield opened
    patch.undo()


def refused(response: Any, *allowed: int) -> dict[str, Any]:
    assert response.status_code in allowed, (response.status_code, response.text[:300])
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"field", "value", "allowed", "next"} and error["allowed"] and error["next"]
    return error


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"{",
        b"[]",
        b"null",
        b"true",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"surface": NaN}',
        b'{"events": [Infinity]}',
        b'{"surface": "\\ud800"}',
        b'{"a": 1, "a": 2}',
        b"[" * 50_000,
        b'{"as_of": 1' + b"0" * 400 + b"}",
        b"1" * 5_000,
    ],
)
def test_what_is_no_json_object_is_a_400(shop: Shop, route: str, body: bytes) -> None:
    refused(shop.post(route, body), 400, 422)


@pytest.mark.parametrize("route", ROUTES)
def test_a_body_over_the_limit_is_a_413_announced_or_not(shop: Shop, route: str) -> None:
    large = b'{"surface": "' + b"x" * 2 * 1024 * 1024 + b'"}'
    assert refused(shop.post(route, large), 413)["field"] == "body"

    def in_parts() -> Iterator[bytes]:
        yield from (large[i : i + 65_536] for i in range(0, len(large), 65_536))

    refused(shop.client.post(route, content=in_parts()), 413)
    refused(shop.client.post(route, content=b"{}", headers={"Content-Length": "9" * 40}), 413, 400)


@pytest.mark.parametrize("count", [1000, 1001, 10_000])
@pytest.mark.parametrize("field", ["cart", "items", "exclude"])
def test_long_lists_are_served_up_to_the_limit_and_named_beyond(shop: Shop, field: str, count: int) -> None:
    response = shop.post("/v1/recommend", {**HERO, field: [f"item-{i}" for i in range(count)]})
    if count <= 1000:
        assert response.status_code == 200
    else:
        assert refused(response, 422) == {
            "field": field,
            "value": f"'{count} items'",
            "allowed": "a list of at most 1000 item ids",
            "next": f"change {field}",
        }


@pytest.mark.parametrize("as_of", [0, -1, 2**63, 10**30, "99999-01-01T00:00:00Z", "0000", "", [], 1.0, True])
def test_an_absurd_instant_is_refused(shop: Shop, as_of: object) -> None:
    assert refused(shop.post("/v1/recommend", {**HERO, "as_of": as_of}), 422)["field"] == "as_of"


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("depth", [500, 950, 1000, 1023, 5000])
def test_deep_nesting_is_refused_at_any_depth(shop: Shop, route: str, depth: int) -> None:
    refused(shop.post(route, b'{"a":' * depth + b"1" + b"}" * depth), 400, 422)


@pytest.mark.parametrize(
    "user", ["é" * 256, "💥", "'; DROP TABLE users; --", "{{7*7}}", "../../etc", "a\u202eb", " "]
)
def test_strange_but_allowed_ids_are_served(shop: Shop, user: str) -> None:
    body = {**HERO, "user_id": user, "items": [user], "cart": [user] * 3}
    assert len(shop.post("/v1/recommend", body).json()["items"]) == 12
    event = {"type": "product_viewed", "session_id": user, "item_id": user, "event_id": user}
    assert shop.post("/v1/events", {"events": [event]}).json()["rejected"] == []


def test_a_wrong_wait_is_refused(shop: Shop) -> None:
    assert refused(shop.post("/v1/events?wait=soon", {"events": [{}]}), 422)["field"] == "wait"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/rank"), ("PUT", "/v1/events"), ("DELETE", "/v1/recommend")]
)
def test_a_wrong_method_is_told_the_right_one(shop: Shop, method: str, path: str) -> None:
    error = refused(shop.client.request(method, path), 405)
    assert error["field"] == "method" and "POST" in error["allowed"]


@pytest.mark.parametrize(
    "path", ["/v1/", "/v1/recommend/", "/v1/nothing", "/v1/%2e%2e/x", "/v1/%00", "/v1/a%20b"]
)
def test_an_unknown_path_is_told_the_known_ones(shop: Shop, path: str) -> None:
    assert "/v1/recommend" in refused(shop.client.post(path, json=HERO), 404)["allowed"]


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
)
values = st.recursive(
    scalars,
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=6), v, max_size=4),
    max_leaves=10,
)
ids = st.text(min_size=1, max_size=8) | st.integers(0, 80).map("item-{}".format)
lists = st.lists(ids, max_size=5)
plausible = {
    "surface": st.sampled_from(SURFACES),
    "user_id": ids,
    "user_proof": st.text(max_size=70),
    "session_id": ids,
    "items": lists,
    "cart": lists,
    "exclude": lists,
    "context": st.dictionaries(st.sampled_from(["device", "country", "page", "os"]), values, max_size=3),
    "limit": st.integers(-5, 120),
    "debug": st.booleans(),
    "as_of": st.integers(0, 2**62),
    "fields": st.lists(st.sampled_from(SHOWN), max_size=3),
}
assert set(plausible) == set(FIELDS)
requests = st.fixed_dictionaries(
    {"surface": plausible["surface"]},
    optional={name: s | values for name, s in plausible.items() if name != "surface"},
)
events = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES) | values, "session_id": ids | values},
    optional={name: ids | values for name in {*SCHEMA.names, "ts", "other"} - {"type", "session_id"}},
)


def encodable(body: Any) -> bytes:
    """JSON as a client may send it, lone surrogates and all."""
    import json

    return json.dumps(body).encode()


fuzz = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@fuzz
@given(body=requests, route=st.sampled_from(("/v1/recommend", "/v1/rank")))
def test_any_request_is_answered_or_refused_by_name(shop: Shop, body: dict[str, Any], route: str) -> None:
    response = shop.client.post(route, content=encodable(body), headers=SECRET)  # which opens debug, as_of
    if response.status_code != 200:
        refused(response, 400, 422)
        return
    answer = response.json()
    assert answer["served_from"] == "live"  # a fallback would mean that the input broke the pipeline
    found = [item["item_id"] for item in answer["items"]]
    assert len(found) == len(set(found)) <= 100


@fuzz
@given(posted=st.lists(events | values, min_size=1, max_size=4))
def test_any_events_are_accepted_or_rejected_one_by_one(shop: Shop, posted: list[Any]) -> None:
    response = shop.post("/v1/events", encodable({"events": posted}))
    if "error" in response.json():
        refused(response, 400, 422)
        return
    receipt = response.json()
    assert response.status_code == (202 if receipt["accepted"] else 422)
    assert receipt["accepted"] + len(receipt["rejected"]) == len(posted)
    assert all(r["error"] for r in receipt["rejected"])


def test_half_an_emoji_costs_its_own_event_alone(shop: Shop) -> None:
    whole = {"type": "product_viewed", "session_id": "halves", "item_id": "i1", "event_id": "whole"}
    body = encodable({"events": [whole, whole | {"event_id": "half", "query": "caf\ud83d"}]})
    response = shop.post("/v1/events", body)
    receipt = response.json()
    assert (response.status_code, receipt["accepted"]) == (202, 1)
    assert [(r["index"], r["event_id"]) for r in receipt["rejected"]] == [(1, "half")]
    assert "an emoji was cut in two" in receipt["rejected"][0]["error"]
    refused(shop.post("/v1/recommend", encodable(HERO | {"session_id": "caf\ud83d"})), 400)


def test_a_batch_of_which_nothing_is_accepted_is_no_202(shop: Shop) -> None:
    response = shop.post("/v1/events", encodable({"events": [{"type": "viewed", "session_id": "s"}]}))
    assert (response.status_code, response.json()["accepted"]) == (422, 0)
    assert response.json()["rejected"][0]["error"].startswith("type: 'viewed' is not allowed")


@pytest.mark.parametrize("query", ["user_id=caf%E9", "user_id=caf%E8", "caf%E9=1", "user_id=%ED%A0%BD"])
def test_a_query_string_that_is_not_utf_8_is_refused_by_name(shop: Shop, query: str) -> None:
    response = shop.client.get(f"/v1/recommend?surface=homepage_hero&{query}")
    assert refused(response, 422)["allowed"] == "UTF-8, each byte of another character as %XX"


@fuzz
@given(pairs=st.lists(st.tuples(st.sampled_from((*FIELDS, "device", "x")), st.text(max_size=12)), max_size=6))
def test_any_query_string_is_answered_or_refused_by_name(shop: Shop, pairs: list[tuple[str, str]]) -> None:
    encoded = [(name, text.encode("utf-8", "surrogatepass")) for name, text in pairs]
    response = shop.client.get("/v1/recommend", params=encoded)  # type: ignore[arg-type]
    if response.status_code != 200:
        refused(response, 422)


@fuzz
@given(body=st.binary(max_size=300), route=st.sampled_from(ROUTES))
def test_any_bytes_are_refused_by_name(shop: Shop, body: bytes, route: str) -> None:
    refused(shop.post(route, body), 400, 422)


def test_after_all_this_the_next_client_is_served(shop: Shop, tmp_path: Path) -> None:
    answer = shop.post("/v1/recommend", HERO).json()
    assert len(answer["items"]) == 12 and answer["served_from"] == "live" and answer["degraded"] is None
