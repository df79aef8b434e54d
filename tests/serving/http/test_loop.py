"""The loop is never held: whatever a client sends within the limits, others wait 20 ms at most.

Measured as CPU time of the loop's thread between two turns, so that a busy machine does not matter; the least
of three tries, so that a collection of garbage does not either.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from shops.effort import quiet_collector
from shops.loop import BOUND_S, held, turns
from shops.storefront import HERO, SECRET, Shop, act, make_home, open_shop

from feature_repo.assemble.matrix import ItemMatrix, Newborns
from feature_repo.events import ITEM_NAMES
from feature_repo.params import load
from serving.compat.doors import routes
from serving.params import Serving
from serving.payloads.terms import Terms
from serving.rules import published
from serving.rules.document import parse
from serving.rules.rulebook import Held

pytestmark = pytest.mark.fault
ROUTES = (
    *("/v1/recommend", "/v1/rank", "/v1/events", "/v1/events?wait=1"),
    *("/v1/page", "/v1/items", "/v1/items?wait=1"),
)
PLACES = {"{vendor}": "com.acme", "{version}": "tp2", "{parent:path}": "projects/p", "{path:path}": "x"}
MIB = 1 << 20


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[Shop]:
    patch = pytest.MonkeyPatch()
    home = make_home(tmp_path_factory.mktemp("home"), 3000)
    patch.setenv("ENDCAP_HOME", str(home[0]))
    patch.setattr(asyncio.events.Handle, "_run", lambda handle: turns.run(handle))
    with quiet_collector(), open_shop(*home, redis_server) as opened:
        opened.redis.flushall()
        opened.client.headers.update(SECRET)  # every door is open, and at any rate
        for route in ROUTES[:3]:
            opened.post(route, HERO | {"items": ["item-1"]})
        opened.post("/v1/events", {"events": [{"type": "search", "session_id": "s"}]})
        yield opened
    patch.undo()


def others() -> list[str]:
    """The addresses of other systems' doors that take a body, the names in them filled in."""
    found = []
    for route in routes(load("compat", Terms)):
        address = route.path
        for place, word in PLACES.items():
            address = address.replace(place, word)
        found += [re.sub(r"{[^}]*}", "item-1", address)] * ("POST" in (route.methods or ()))
    return sorted(set(found))


def repeated(part: bytes, size: int) -> bytes:
    return b",".join([part] * max(1, size // (len(part) + 1)))


def numbered(form: bytes, size: int) -> bytes:
    return b",".join(form % i for i in range(max(1, size // (len(form) + 5))))


def filled(form: bytes, part: bytes, size: int) -> bytes:
    return form % (part * max(1, size // len(part)))


VALUES = (
    b"1",
    b"1.5",
    b"{}",
    b"[]",
    b"null",
    b'""',
    b'{"a":1}',
    b'"a\\u00e9"',
    b'{"a":{"a":1}}',
    b"1e308",
    b"[[[]]]",
)
TEXTS = (
    b"a",
    b",",
    b"{",
    b"\\u00e9",
    b"\\ud800",
    b"\\n",
    "é".encode(),
    "💥".encode(),
    b"'",
    b"\\ud83d\\ude00",
)
FIELDS = (
    "surface",
    "user_id",
    "items",
    "cart",
    "exclude",
    "context",
    "limit",
    "as_of",
    "events",
    "x",
    "debug",
)
sizes = st.one_of(st.integers(1, MIB), st.just(MIB))
fields = st.sampled_from(FIELDS).map(str.encode)
depths = st.integers(1, 1200)
open_value = st.one_of(
    st.builds(lambda v, n: b"[" + repeated(v, n) + b"]", st.sampled_from(VALUES), sizes),
    st.builds(lambda t, n: filled(b'"%s"', t, n), st.sampled_from(TEXTS), sizes),
    st.builds(lambda n: b"{" + numbered(b'"%d":1', n) + b"}", sizes),
    st.builds(lambda n: b"{" + numbered(b'"%d":1', n) + b',"0":1}', sizes),
    st.builds(lambda n: b"[" + numbered(b'"%x"', n) + b"]", sizes),
    st.builds(
        lambda d, n: (b"[" * d + b"]" * d + b",") * (n // (2 * d + 1)), st.integers(1, 1200), sizes
    ).map(lambda inner: b"[" + inner + b"0]"),
    st.builds(lambda d: b'{"a":' * d + b"1" + b"}" * d, st.integers(1, 180_000)),
    st.builds(lambda n: b"1" * n, sizes),
    st.builds(lambda n: b"0." + b"1" * n, sizes),
    st.builds(lambda n: b"-1e" + b"1" * n, sizes),
)
bodies = st.one_of(
    st.builds(lambda name, value: b'{"surface":"pdp_fbt","%s":%s}' % (name, value), fields, open_value),
    open_value,
    st.builds(
        lambda name, value: b'{"%s":[%s]}' % (name, value),
        st.sampled_from((b"events", b"batch", b"surfaces", b"items", b"data")),
        open_value,
    ),
    st.builds(
        lambda value: b'{"events":[{"type":"search","session_id":"s","query":%s}]}' % value, open_value
    ),
    st.builds(lambda value, n: value[:n], open_value, sizes),
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=bodies, route=st.sampled_from((*ROUTES, *ROUTES, *others())))
@example(body=b"{" + numbered(b'"%d":1', 170_000) + b',"19999":1}', route="/v1/recommend")
@example(body=b'{"surface":[' + repeated(b"{}", MIB - 20) + b"]}", route="/v1/recommend")
@example(body=b'{"events":[' + repeated(b'{"a":1}', MIB - 20) + b"]}", route="/v1/events")
@example(body=b'{"events":[{"query":"' + b"\\ud800" * 170_000 + b'"}]}', route="/v1/events")
def test_no_body_within_the_limits_holds_the_loop(shop: Shop, body: bytes, route: str) -> None:
    body = body[: load("serving", Serving).max_body_bytes]
    assert held(shop, lambda: shop.post(route, body)) < BOUND_S


ids = st.sampled_from(["item-%d", "unknown %d", "é" * 250 + "%d", "💥" * 50 + "%d"])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lists=st.fixed_dictionaries({name: ids for name in ("items", "cart", "exclude")}),
    count=st.sampled_from([0, 1, 100, 1000]),
    limit=st.sampled_from([1, 12, 100]),
    debug=st.booleans(),
    route=st.sampled_from(("/v1/recommend", "/v1/rank")),
)
@example({"items": "item-%d", "cart": "item-1%d", "exclude": "item-2%d"}, 1000, 100, True, "/v1/recommend")
@example({"items": "item-%d", "cart": "unknown %d", "exclude": "item-2%d"}, 1000, 100, True, "/v1/rank")
def test_no_request_within_the_limits_holds_the_loop(
    shop: Shop, lists: dict[str, str], count: int, limit: int, debug: bool, route: str
) -> None:
    asked: dict[str, Any] = {name: [form % i for i in range(count)] for name, form in lists.items()}
    body = {**HERO, **asked, "debug": debug} | ({} if route == "/v1/rank" else {"limit": limit})
    sent = json.dumps(body, ensure_ascii=False).encode()
    if len(sent) <= load("serving", Serving).max_body_bytes:
        assert held(shop, lambda: shop.post(route, sent)) < BOUND_S


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    count=st.sampled_from([1, 50, 999, 1000]),
    fill=st.sampled_from(["a", "é", "💥", "'", "\ud83d", "\x00"]),
    length=st.integers(0, 250),
    extra=st.sampled_from([{}, {"colour": "red"}, {"price": -1}, {"type": "viewed"}, {"query": [1] * 5}]),
    wait=st.sampled_from(["", "?wait=1"]),
)
def test_a_thousand_events_of_any_kind_do_not_hold_the_loop(
    shop: Shop, count: int, fill: str, length: int, extra: dict[str, Any], wait: str
) -> None:
    one = {
        "type": "product_viewed",
        "session_id": "s",
        "item_id": "i" + fill * length,
        "query": fill * length,
    }
    events = [one | extra | {"event_id": f"{time.time_ns()}-{i}"} for i in range(count)]
    body = json.dumps({"events": events}).encode()[: load("serving", Serving).max_body_bytes]
    assert held(shop, lambda: shop.post(f"/v1/events{wait if extra else ''}", body)) < BOUND_S


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    part=st.sampled_from(["items=%C3%A9", "a", "items", "user_id=%FF", "surface=pdp_fbt", "=", "", "+"]),
    size=st.integers(1, load("serving", Serving).max_header_bytes),
)
def test_no_query_string_within_the_limits_holds_the_loop(shop: Shop, part: str, size: int) -> None:
    query = "surface=pdp_fbt&" + "&".join([part] * (size // (len(part) + 1)))
    assert held(shop, lambda: shop.client.get(f"/v1/recommend?{query}")) < BOUND_S


SHELF = {"surface": "similar_items", "items": [f"item-{i}" for i in range(1000)], "limit": 100}


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(shelves=st.integers(1, 8), items=st.sampled_from([1, 60, 1000]), limit=st.sampled_from([1, 12, 100]))
@example(8, 1000, 100)
def test_no_page_holds_the_loop(shop: Shop, shelves: int, items: int, limit: int) -> None:
    shelf = SHELF | {"items": SHELF["items"][:items], "limit": limit}
    body = {"session_id": "s", "fields": ["title", "price"], "surfaces": [shelf] * shelves}
    assert held(shop, lambda: shop.post("/v1/page", body)) < BOUND_S


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    count=st.sampled_from([1, 50, 1000]),
    fill=st.sampled_from(["a", "é", "💥", "\ud83d"]),
    length=st.integers(0, 200),
    extra=st.sampled_from(
        [{"stock": 0}, {"price": "x"}, {"deleted": True}, {"accessories": ["item-1"] * 20}, {"colour": "red"}]
    ),
)
def test_a_thousand_changes_of_items_do_not_hold_the_loop(
    shop: Shop, count: int, fill: str, length: int, extra: dict[str, Any]
) -> None:
    told = {"title": "t" + fill * length, "price": 9.5} if "deleted" not in extra else {}
    items = [{"item_id": f"item-{i}"} | told | extra for i in range(count)]
    body = json.dumps({"items": items}).encode()[: load("serving", Serving).max_body_bytes]
    assert held(shop, lambda: shop.post("/v1/items", body)) < BOUND_S


LISTS = {
    "/compat/metarank/rank/category_sort": {"id": "r", "user": "u", "session": "s"},
    "/compat/metarank/recommend/similar_items": {"count": 100, "user": "u"},
}


@pytest.mark.parametrize("route", LISTS)
def test_no_list_of_another_system_holds_the_loop(shop: Shop, route: str) -> None:
    items = [{"id": f"item-{i}"} for i in range(1000)]
    body = LISTS[route] | {"items": items if "rank/" in route else [one["id"] for one in items]}
    assert held(shop, lambda: shop.post(route, body)) < BOUND_S


def test_neither_other_rules_nor_a_newborn_hold_the_loop(shop: Shop) -> None:
    """Rules are published and an item arrives under the eyes of the requests that come right after."""
    before, told = shop.features.matrix, {name: ["brand 1"] for name in ITEM_NAMES}
    told |= {name: [None] for name in ("price", "margin", "stock", "available_from", "tags")}
    try:
        for number in range(4):
            where = [{"category": f"Home/Bags/Kind {i % 15}", "price": {"from": i}} for i in range(100)]
            rules = [{"id": f"r{i}", "do": {"block": {"where": one}}} for i, one in enumerate(where)]
            text = json.dumps({"rules": [*rules, {"id": f"n{number}", "do": {"floor": {"stock": 1}}}]})
            published.publish(shop.redis, parse(text.encode()), act(), published.read(shop.redis))
            turns.longest = 0.0
            shop.run(shop.rulebook.poll)
            assert turns.longest < BOUND_S
            born = Newborns.of([5] * (number + 1), [np.ones(64, np.float32)] * (number + 1))
            many = {name: values * (number + 1) for name, values in told.items()}
            grown = before.with_newborns([f"newborn {i}" for i in range(number + 1)], born, many)
            shop.run(asyncio.to_thread, arrive, shop, grown)
            assert held(shop, lambda: shop.post("/v1/recommend", HERO)) < BOUND_S
            assert len(shop.features.matrix) == len(before) + number + 1
    finally:
        shop.features.matrix = before
        shop.redis.delete(published.RULES, published.VERSIONS)
        shop.rulebook._held = Held()


def arrive(shop: Shop, grown: ItemMatrix) -> None:
    """As a refresh does it."""
    with shop.rulebook.ready(grown):
        shop.features.matrix = grown
