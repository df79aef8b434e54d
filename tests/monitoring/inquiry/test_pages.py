"""Products and Shopper in a browser, over a console and a service that run: the lists are the served ones."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from shops.browser import Tab
from shops.console import running_console
from shops.service import SECRET_KEY, Service, free_port
from shops.storefront import session_row, user_row

from feature_repo.clock import micros
from feature_repo.events import EARLIEST
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.online.rows import OnlineView, read_rows
from feature_repo.params import load
from monitoring.console.app import build_app
from monitoring.experiment.attribution import FeedbackParams
from monitoring.pages.desk import ConsoleParams, Desk

pytest_plugins = ("shops.service", "shops.browser")
TOKEN = "the viewer's token"
HOSTILE = '"><img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def console(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a console beside the service; item-5 has a title that means harm."""
    now, view = time.time_ns() // 1000, OnlineView(ITEM_CATALOGUE)
    visit = session_row(("product_viewed", "item-3"), ("add_to_cart", "item-8"), session="seen")
    service.store("session_context", "seen", now, visit)
    service.store("user_history", "known", now, user_row(("purchase_completed", "item-20")))
    with service.redis() as client, pytest.MonkeyPatch.context() as patch:
        held = read_rows(client, view, ["item-5"])[0]
        assert held is not None
        service.store(ITEM_CATALOGUE.name, "item-5", micros(EARLIEST) + 1, held[1] | {"title": HOSTILE})
        for name, value in (
            ("ENDCAP_HOME", str(service.home)),
            ("REDIS_URL", service.redis_url),
            ("ENDCAP_SERVICE_PORT", service.url.rsplit(":", 1)[1]),
            ("ENDCAP_SECRET_TOKEN", SECRET_KEY),
        ):
            patch.setenv(name, value)
        params, feedback = load("console", ConsoleParams), load("feedback", FeedbackParams)
        folder: Path = tmp_path_factory.mktemp("data")
        store = redis.Redis.from_url(service.redis_url, socket_timeout=5)
        app = build_app(Desk(store, folder, params, feedback, 0.03), {"privacy": TOKEN})
        with running_console(app) as url:
            yield url


def served(service: Service, **fields: object) -> list[str]:
    body = {"surface": "homepage_hero", "user_id": "known", "session_id": "seen"} | fields
    for _ in range(20):  # a busy machine reads the shopper's rows too late for a list of his own
        answer = httpx.post(f"{service.url}/v1/recommend", json=body).raise_for_status().json()
        if answer["degraded"] is None:
            return [one["item_id"] for one in answer["items"]]
    raise AssertionError(answer)


def test_a_viewer_finds_a_product_and_asks_why_it_is_or_is_not_shown(
    console: str, service: Service, browser: Tab
) -> None:
    browser.call("Network.setExtraHTTPHeaders", headers={"Authorization": f"Bearer {TOKEN}"})
    expected = served(service)
    browser.open(f"{console}/products?q=item-3")
    browser.click("a[href*='item_id=item-3']")
    browser.until(
        "location.pathname === '/products/one' && document.querySelector('[name=session_id]') !== null"
    )
    browser.run("document.querySelector('[name=session_id]').value = 'seen'")
    browser.click("form .primary")
    browser.until("location.search.includes('session_id=seen') && document.readyState === 'complete'")
    assert "shown" in browser.run("document.querySelector('main').innerText")
    browser.open(f"{console}/products/one?item_id=item-8&user_id=known&session_id=seen&surface=homepage_hero")
    told = browser.run("document.querySelector('main').innerText")
    assert "not shown" in told and "fell at eligibility" in told and "in the cart" in told
    links = browser.run("[...document.querySelectorAll('.slots h3 a')].map(a => a.href)")
    assert [link.split("item_id=")[1].split("&")[0] for link in links] == expected

    def shown() -> int:
        browser.open(f"{console}/products/one?item_id={expected[0]}")
        return int(browser.run("document.querySelector('.tile .value').innerText"))

    browser.until(lambda: shown() > 0)  # an exposure is written behind the answer
    before = shown()
    assert served(service) == expected
    browser.until(lambda: shown() == before + 1)


def test_a_shoppers_page_has_his_rows_and_the_list_that_he_is_served(
    console: str, service: Service, browser: Tab
) -> None:
    browser.call("Network.setExtraHTTPHeaders", headers={"Authorization": f"Bearer {TOKEN}"})
    browser.open(f"{console}/shopper?user_id=known&session_id=seen&surface=homepage_hero")
    told = browser.run("document.querySelector('main').innerText")
    assert "Item 20" in told and "bought" in told and "Item 8" in told and "visit" in told
    links = browser.run("[...document.querySelectorAll('.slots h3 a')].map(a => a.href)")
    assert [link.split("item_id=")[1].split("&")[0] for link in links] == served(service)
    assert browser.run("document.querySelectorAll('.terms meter').length") > 12
    for width in (1280, 390):
        browser.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    browser.open(f"{console}/shopper?user_id=nobody&surface=homepage_hero")
    assert "Nothing is stored of this id" in browser.run("document.querySelector('main').innerText")


@pytest.mark.parametrize("path", ["/products?q=", "/shopper?user_id=", "/products/one?item_id="])
def test_what_means_harm_is_a_text_in_the_browser(console: str, browser: Tab, path: str) -> None:
    browser.call("Network.setExtraHTTPHeaders", headers={"Authorization": f"Bearer {TOKEN}"})
    browser.open(console + path + "%22%3E%3Cimg%20src=x%20onerror=%22document.title=1%22%3E")
    assert browser.run("document.title") != "1"
    browser.open(f"{console}/products/one?item_id=item-5")
    assert browser.run("document.title") != "1" and HOSTILE in browser.run("document.body.innerText")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/products/one?item_id=%0a", 409),
        ("/products/one", 409),
        ("/shopper?session_id=a%00b&surface=x", 409),
        ("/products/one?item_id=nope&surface=nope", 200),
        (f"/products?q={'%F0%9F%92%A9' * 300}", 200),
        (f"/shopper?user_id={'x' * 257}", 409),
    ],
)
def test_no_question_is_a_defect(console: str, path: str, status: int) -> None:
    answer = httpx.get(console + path, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)
    assert answer.status_code == status
    assert httpx.get(console + path).status_code == 401


def test_a_service_that_is_away_is_told(console: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_SERVICE_PORT", str(free_port()))
    answer = httpx.get(
        f"{console}/shopper?surface=homepage_hero", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert (
        answer.status_code == 409
        and "the service does not answer" in answer.text
        and "endcap status" in answer.text
    )
