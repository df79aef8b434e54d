"""The page of docs/storefront.md, from another origin, in a real Chromium, against the running service."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from shops.browser import Tab
from shops.service import Service, free_port, running_service

from feature_repo.eventlog.keys import stream_keys
from feature_repo.persons.privacy import persons

pytest_plugins = ("shops.browser",)
ROOT = Path(__file__).resolve().parents[2]
PORT = free_port()
CARDS = (
    "[...document.querySelectorAll('[data-endcap]')]"
    ".map(rail => [...rail.querySelectorAll('a')].map(a => a.innerText.trim()))"
)


def page(service_url: str) -> str:
    """The first page of HTML in docs/storefront.md, with the address of this service."""
    text = (ROOT / "docs" / "storefront.md").read_text()
    (found,) = re.findall(r"^```html\n(.*?)^```", text, re.S | re.M)
    assert len(found.splitlines()) <= 20
    return str(found.replace("http://127.0.0.1:3000", service_url))


class Handler(BaseHTTPRequestHandler):
    """Any path is the page."""

    def __init__(self, html: str, *args: Any) -> None:
        self.html = html
        super().__init__(*args)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.html.encode())

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def origin(html: str, port: int) -> Iterator[str]:
    """A shop that shows `html`; its origin."""
    server = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, html))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """It allows the origin of PORT."""
    cors = {"origins": [f"http://127.0.0.1:{PORT}"]}
    with running_service(tmp_path_factory.mktemp("service"), cors=cors) as found:
        yield found


def events(service: Service) -> list[dict[str, Any]]:
    with service.redis() as store:
        entries = [one for key in stream_keys(4) for one in store.xrange(key)]
    return [orjson.loads(fields[b"event"]) for _, fields in entries]


def exposures(service: Service) -> dict[str, list[str]]:
    with service.redis() as store:
        logged = [orjson.loads(fields[b"exposure"]) for _, fields in store.xrange("endcap:exposures")]
    return {one["request_id"]: one["items"] for one in logged}


def test_the_snippet_fills_its_shelves_and_its_impressions_and_clicks_arrive(
    service: Service, browser: Tab
) -> None:
    with origin(page(service.url), PORT) as shop:
        browser.open(shop)
        browser.until(f"{CARDS}.every(rail => rail.length === 4)")
        hero, similar = browser.run(CARDS)
        assert all(re.fullmatch(r"Item \d+ €\d+\.00", card) for card in hero), hero
        assert not {card.split(" €")[0] for card in hero} & set(similar)
        browser.until(lambda: len([e for e in events(service) if e["type"] == "impression"]) == 8)
        browser.click("[data-endcap=similar_items] a:nth-of-type(2)")
        browser.until(lambda: [e for e in events(service) if e["type"] == "click"])
    (clicked,) = [e for e in events(service) if e["type"] == "click"]
    shown = exposures(service)
    assert (
        clicked["surface"] == "similar_items"
        and clicked["slot"] == 1
        and clicked["user_id"] == persons().of("U123")
    )
    assert shown[clicked["request_id"]][1] == clicked["item_id"]
    for event in events(service):
        assert event["item_id"] == shown[event["request_id"]][event["slot"]]
    hosts = {asked.split("/")[2] for asked in browser.asked}
    assert hosts == {f"127.0.0.1:{PORT}", service.url.removeprefix("http://")}  # and nobody else
    assert not [asked for asked in browser.asked if asked.startswith("OPTIONS")]  # no preflight


def test_an_origin_that_is_not_named_and_a_service_that_is_down_leave_no_hole(
    service: Service, browser: Tab
) -> None:
    for address in (service.url, f"http://127.0.0.1:{free_port()}"):
        with origin(page(address), free_port()) as shop:
            browser.said.clear()
            browser.open(shop)
            browser.until(lambda: browser.run("1") and browser.said)
            assert (
                browser.run("document.querySelector('[data-endcap]').innerText.trim()")
                == "All that is on sale"
            )
            assert browser.run("document.querySelectorAll('[data-endcap] a').length") == 1
