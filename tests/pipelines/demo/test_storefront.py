"""The demo shop in a real Chromium: a click changes the shelf, the page says why, nothing leaves a hole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson
import psutil
import pyarrow.parquet as pq
import pytest
import uvicorn
from shops import tiny_bundle
from shops.browser import Tab
from shops.service import Service, free_port, running_service, stop
from starlette.testclient import TestClient

from feature_repo.eventlog.keys import stream_keys
from pipelines.demo.aisles import build_app

pytest_plugins = ("shops.browser",)
SHELF = "[...document.querySelectorAll('[data-endcap=homepage_hero] b')].map(title => title.textContent)"
EVERYBODY = "What everybody looks at most."  # a degraded answer
WHY = "document.querySelector('.why').textContent"
DEAD = f"http://127.0.0.1:{free_port()}"


@contextmanager
def opened(app: Any, port: int) -> Iterator[str]:
    # Not serving.http.connections, which a test before may have installed: its end is the whole process's.
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", http="httptools"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    """The shop's address and the service behind it, with a consumer that applies what is told."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_STOREFRONT_PORT", str(port))
        with running_service(tmp_path_factory.mktemp("service")) as service:
            env = {**os.environ, "ENDCAP_HOME": str(service.home), "REDIS_URL": service.redis_url}
            command = [sys.executable, "-m", "pipelines", "stream", "--processes", "1"]
            out = (service.home / "stream.log").open("wb")
            consumer = psutil.Popen(command, env=env, cwd=service.home, stdout=out, stderr=subprocess.STDOUT)
            items = pq.read_table(service.bundle / "catalogue.parquet")
            try:
                with opened(build_app(items, service.url, ["u1"]), port) as url:
                    _until_applied(service)
                    yield url, service
            finally:
                stop(consumer)
                out.close()


def _until_applied(service: Service) -> None:
    """The consumer works: an event that is waited for is applied."""
    event = {"type": "search", "session_id": "first"}
    for _ in range(6):
        told = httpx.post(f"{service.url}/v1/events?wait=1", json={"events": [event]}, timeout=20).json()
        if told["applied"]:
            return
    raise AssertionError((service.home / "stream.log").read_text()[-2000:])


def told(browser: Tab, url: str) -> str:
    """Why the shelf holds what it holds; asked again where a busy machine gave an answer without rows."""

    def asked() -> str:
        browser.open(url)
        why = str(browser.until(WHY))
        return "" if why == EVERYBODY else why

    return str(browser.until(asked))


def events(service: Service) -> list[dict[str, Any]]:
    with service.redis() as store:
        entries = [one for key in stream_keys(4) for one in store.xrange(key)]
    return [orjson.loads(fields[b"event"]) for _, fields in entries]


def test_a_look_at_a_product_changes_the_shelf_and_the_page_says_why(
    shop: tuple[str, Service], browser: Tab
) -> None:
    url, service = shop
    assert told(browser, url).startswith("Nothing is known of this visit yet")
    before = browser.run(SHELF)
    browser.click("[data-endcap=homepage_hero] a:nth-of-type(2)")
    browser.until("document.querySelectorAll('[data-endcap=similar_items] .reason').length === 8")
    product = browser.run("document.body.dataset.product")
    assert browser.run("document.querySelector('h1').textContent") == before[1]
    why = told(browser, url)
    assert re.fullmatch(rf"[1-8] of 8 are new, because you looked at “{before[1]}”\.", why), why
    after = browser.run(SHELF)
    assert after != before and len(after) == 8
    assert browser.run("document.querySelectorAll('.card.fresh').length") == int(why[0])
    assert all(browser.run("[...document.querySelectorAll('.reason')].map(reason => reason.textContent)"))
    browser.until(lambda: [e for e in events(service) if e["type"] == "click"])
    (clicked,) = [e for e in events(service) if e["type"] == "click"]
    assert clicked["item_id"] == product and clicked["slot"] == 1 and clicked["request_id"]
    assert [e["item_id"] for e in events(service) if e["type"] == "product_viewed"] == [product]
    assert not [said for said in browser.said if "Content Security Policy" in said]


def test_what_is_put_into_the_cart_is_told_and_shown_again_nowhere(
    shop: tuple[str, Service], browser: Tab
) -> None:
    url, service = shop
    browser.open(f"{url}/product/item-3")
    browser.until("document.querySelectorAll('.reason').length")
    browser.click("#add button")
    browser.until("document.querySelectorAll('[data-endcap=cart_upsell] .reason').length === 8")
    assert browser.run("document.querySelector('#cart b').textContent") == "Item 3"
    assert "Item 3" not in browser.run(SHELF.replace("homepage_hero", "cart_upsell"))
    browser.until(lambda: [e for e in events(service) if e["type"] == "add_to_cart"])
    browser.click("#order button")
    browser.until(lambda: [e for e in events(service) if e["type"] == "purchase_completed"])
    (bought,) = [e for e in events(service) if e["type"] == "purchase_completed"]
    assert bought["item_id"] == "item-3"


def test_without_a_service_every_page_is_whole(browser: Tab) -> None:
    with opened(build_app(tiny_bundle.catalogue(60), DEAD), free_port()) as url:
        for path, cards in (("/", 8), ("/product/item-3", 3), ("/category?path=Home/Bags/Kind 3", 4)):
            browser.open(url + path)
            browser.until(f"document.querySelectorAll('.card b').length >= {cards}")


def test_nothing_that_a_visitor_sends_reaches_a_page_unescaped_or_is_a_defect() -> None:
    bad = "\"'><script>alert(1)</script>"
    items = tiny_bundle.catalogue(60).to_pylist()
    items[1] |= {"title": bad, "description": bad, "item_id": f"a/{bad}"}
    table = tiny_bundle.pa.Table.from_pylist(items, tiny_bundle.ITEM_SCHEMA)
    with TestClient(build_app(table, DEAD, [bad])) as client:
        client.cookies.update({"visit": "x" * 300, "user": "evil"})
        for path in (
            "/",
            f"/product/a/{bad}",
            "/product/none",
            "/category?path=" + bad,
            "/cart",
            "/picture/no.svg",
        ):
            answer = client.get(path)
            assert answer.status_code in (200, 404) and "<script>alert" not in answer.text
        assert client.post("/cart", data={"item": "none"}).status_code == 200
        assert client.post("/cart", content=b"x" * 10_000).status_code == 200
        assert client.post("/visitor", data={"user": bad}).status_code == 200
