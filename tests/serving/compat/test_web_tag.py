"""Hits of Google's web tag: address and lines, what comes twice, a page of another origin in a real Chromium.

gtag.js itself is served by Google alone and stands in no package registry: the page of this test has a script
that builds its addresses and bodies by gtag's rules, and sends them by the browser's own means.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import orjson
import pytest
from shops.browser import Tab
from shops.payloads import LINES, ONE, SHARED
from shops.service import Service

from feature_repo.eventlog.keys import stream_keys
from feature_repo.params import load
from feature_repo.persons.privacy import persons
from serving.compat import gtag
from serving.errors import RequestError
from serving.payloads.terms import Terms

pytest_plugins = ("shops.browser", "shops.service")
DOOR = "/compat/ga4/g/collect"
# What is pushed to gtag() becomes what it sends, by its own rules: a tilde twice, lines by CR LF, a single
# event in the address, and in the body where the address would exceed 2,048 characters.
TAG = """
const item = told => Object.entries(told).map(([k, v]) => k + String(v).replace(/~/g, "~~")).join("~");
const query = told => Object.entries(told).map(p => p.map(encodeURIComponent).join("=")).join("&");
const event = ([name, params, items]) => query({en: name, ...params,
  ...Object.fromEntries(items.map((one, n) => ["pr" + (n + 1), item(one)]))});
let count = 0;
function collect(shared, events, how) {
  const address = DOOR + "?" + query({v: 2, tid: "G-1", _p: 1717, ...shared, _s: ++count, dl: location.href});
  const lines = events.map(event), whole = address + "&" + lines[0];
  const alone = lines.length === 1 && whole.length < 2048;
  const url = alone ? whole : address, body = alone ? undefined : lines.join("\\r\\n");
  if (how === "beacon") return navigator.sendBeacon(url, body);
  const sent = fetch(url, {method: "POST", body, keepalive: true, mode: "no-cors", credentials: "include"});
  return sent.then(() => true);
}
"""


class Page(BaseHTTPRequestHandler):
    """Any path is an empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>A shop</title>")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def origin() -> Iterator[str]:
    """A shop's page, of an origin that the service was not told of."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def stream(service: Service) -> list[dict[str, Any]]:
    with service.redis() as store:
        found = [orjson.loads(fields[b"event"]) for key in stream_keys(4) for _, fields in store.xrange(key)]
    return sorted(found, key=lambda event: (event["type"], event["item_id"] or ""))


def of_visits(service: Service, *visits: str) -> list[dict[str, Any]]:
    """What the stream holds of these visits; other tests write to it as well."""
    named = {persons().of(visit) for visit in visits}
    return [event for event in stream(service) if event["session_id"] in named]


def test_what_a_page_of_another_origin_sends_is_in_the_stream(
    service: Service, browser: Tab, origin: str
) -> None:
    browser.open(origin)
    browser.run(TAG.replace("DOOR", json.dumps(service.url + DOOR)) + "; globalThis.collect = collect; 1")
    ann = {"cid": "31.41", "uid": "U-web", "sid": 1700000001, "gcs": "G111", "npa": 0}
    bob = {"cid": "27.18", "sid": 1700000002, "gcs": "G100", "npa": 1}
    mug, tee = (
        {"id": "item-3", "nm": "Mug ~ ü&=+", "pr": 9.5, "qt": 2},
        {"id": "item-4", "nm": "Tee", "pr": 20},
    )
    shelf = {"ep.item_list_id": "similar_items", "ep.item_list_name": "Like this"}
    order = {"ep.transaction_id": "W-1", "epn.value": 39, "cu": "EUR"}
    sent: list[tuple[Any, list[Any], str]] = [
        (ann, [["view_item", {"_et": 3}, [mug]]], "beacon"),
        (ann, [["page_view", {}, []], ["view_item_list", shelf, [mug | {"lp": 0}, tee | {"lp": 1}]],
               ["select_item", shelf, [tee | {"lp": 1}]]], "beacon"),
        (ann, [["add_to_cart", {}, [mug]]], "fetch"),
        (ann, [["add_to_cart", {}, [mug]]], "fetch"),
        (ann, [["purchase", order, [mug | {"br": "b" * 1500}, tee | {"va": "v" * 600, "qt": 1}]]], "fetch"),
        (bob, [["view_item", {}, [tee]], ["scroll", {"epn.percent_scrolled": 90}, []]], "beacon"),
        (bob, [["view_item", {"ep.from": origin}, [mug]]], "fetch"),
    ]  # fmt: skip
    for shared, events, how in sent:
        assert browser.run(f"collect({json.dumps(shared)}, {json.dumps(events)}, {how!r})") is True
    visits = "31.41.1700000001", "27.18.1700000002"
    browser.until(lambda: len(of_visits(service, *visits)) >= 10)
    names = ("type", "item_id", "price", "quantity", "position", "surface", "list_name", "user_id", "consent")
    told = [tuple(one[name] for name in names) for one in of_visits(service, visits[0])]
    user = persons().of("U-web")
    assert told == [
        ("add_to_cart", "item-3", 9.5, 2, None, None, None, user, True),
        ("add_to_cart", "item-3", 9.5, 2, None, None, None, user, True),
        ("click", "item-4", 20.0, None, 1, "similar_items", "Like this", user, True),
        ("impression", "item-3", 9.5, None, 1, "similar_items", "Like this", user, True),
        ("impression", "item-4", 20.0, None, 2, "similar_items", "Like this", user, True),
        ("product_viewed", "item-3", 9.5, None, None, None, None, user, True),
        ("purchase_completed", "item-3", 9.5, 2, None, None, None, user, True),
        ("purchase_completed", "item-4", 20.0, 1, None, None, None, user, True),
    ]
    refused = of_visits(service, visits[1])
    assert [(one["item_id"], one["consent"]) for one in refused] == [("item-3", False), ("item-4", False)]
    assert all(abs(one["event_ts"] - one["created_ts"]) < 1_000_000 for one in of_visits(service, *visits))
    preflights = [asked for asked in browser.asked if asked.startswith("OPTIONS")]
    assert preflights == []  # a beacon waits for no leave
    assert len(of_visits(service, *visits)) == 10


def test_the_answer_is_204_without_a_body_and_the_same_hit_again_counts_once(service: Service) -> None:
    before = len(stream(service))
    with service.client() as client:
        for method in ("POST", "GET", "POST"):
            answer = client.request(method, f"{DOOR}?{ONE.replace('T1', 'T-twice')}")
            assert (answer.status_code, answer.content) == (204, b"")
            assert client.post(f"{DOOR}?{SHARED}", content=LINES.encode()).status_code == 204
    assert len(stream(service)) == before + 2 + 6


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", b""),
        ("v=2&en=view_item&pr1=idA", b""),
        ("v=2&cid=1.2&en=view_item", b"\xff\xfe"),
        ("v=2&cid=%FF&en=view_item&pr1=idA", b""),
        ("v=2&cid=1.2&en=view_item&pr1=~~~&pr0=idA&pr1000=idA&pr%C2%B2=idA", b""),
        ("v=2&cid=1.2", b"en=view_item&pr1=idA\n" * (gtag.MAX_HITS + 1)),
        ("v=2&cid=1.2&en=view_item", b"&a" * 4_000),
        ("v=2&cid=1.2&en=view_item&pr1=idA", b"x" * (gtag.MAX_BYTES + 1)),
    ],
)
def test_a_hit_that_cannot_be_read_is_said_nothing_of_and_leaves_nothing(
    service: Service, query: str, body: bytes
) -> None:
    before = len(stream(service))
    answer = httpx.post(f"{service.url}{DOOR}?{query}", content=body, timeout=10)
    assert (answer.status_code, answer.content) == (204, b"")
    assert len(stream(service)) == before


def test_what_is_too_much_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match="at most 25 lines, 3200 parameters and 65536 bytes"):
        gtag.hits(b"", b"en=view_item\r\n" * 26)
    assert len(gtag.hits(b"", b"en=view_item\r\n\n" * 25)) == 25


def test_the_line_s_own_parameters_prevail_and_items_come_in_their_numbers_order() -> None:
    shared, line = b"cid=1.2&sid=7&en=scroll&uid=U1", b"en=add_to_cart&pr10=idJ&pr2=idB&pr1=idA&uid="
    (hit,) = gtag.hits(shared, line)
    found = gtag.translate(hit, load("compat", Terms))
    assert [(one["type"], one["item_id"], one["user_id"]) for one in found] == [
        ("add_to_cart", "A", "1.2"),
        ("add_to_cart", "B", "1.2"),
        ("add_to_cart", "J", "1.2"),
    ]
