"""Rules in a real Chromium over a real service: drafted, seen, published, asked for over HTTP, taken back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from shops.browser import Tab
from shops.console import running_console
from shops.service import Service

from feature_repo.params import load
from monitoring.console.app import build_app
from monitoring.experiment.attribution import FeedbackParams
from monitoring.fitting.showroom import opened
from monitoring.merchandising.fittings import Fittings
from monitoring.pages.desk import ROLES, ConsoleParams, Desk

pytest_plugins = ("shops.browser", "shops.service")
HOSTILE = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
TOKENS = {role: f"token-of-{role}" for role in ROLES}
PINNED = "item-11"


@contextmanager
def console(service: Service) -> Iterator[str]:
    """Its address; every product has a title that would act if it could."""
    with redis.Redis.from_url(service.redis_url) as store:
        params = ConsoleParams(audit_entries=50, looks=3, session_s=600, pictures="http://127.0.0.1:1")
        desk = Desk(store, service.home / "data", params, load("feedback", FeedbackParams), 0.03)

        def hostile(found: Any) -> Any:
            room = opened(found)
            room.matrix.shown["title"] = [f"{HOSTILE} {title}" for title in room.matrix.shown["title"]]
            return room

        desk.once(Fittings, lambda: Fittings(desk, hostile))
        app = build_app(desk, TOKENS)
        with running_console(app) as url:
            yield url


def typed(tab: Tab, *rules: dict[str, Any]) -> None:
    text = json.dumps({"rules": rules})
    tab.run(
        f"(() => {{ const d = document.querySelector('#document'); d.value = {json.dumps(text)};"
        "d.dispatchEvent(new Event('input')); })()"
    )


def first(service: Service) -> dict[str, Any]:
    asked = {"surface": "homepage_hero", "session_id": "s1"}
    found: dict[str, Any] = httpx.get(f"{service.url}/v1/recommend", params=asked).json()["items"][0]
    return found


def wait_for(service: Service, wanted: bool) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while ((slot := first(service)).get("rule") == "hero") != wanted:
        told = slot, httpx.get(f"{service.url}/readyz").text, service.log.read_text()[-3000:]
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
    return slot


def test_a_pin_is_drafted_seen_published_and_taken_back(
    browser: Tab, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(service.home))
    monkeypatch.setenv("REDIS_URL", service.redis_url)
    with console(service) as url:
        browser.open(f"{url}/login")
        browser.run(
            f"document.querySelector('#token').value = {TOKENS['merchandiser']!r};"
            "document.querySelector('#name').value = 'ana'"
        )
        browser.click("form.door button")
        browser.until("location.pathname === '/' && document.readyState === 'complete'")
        browser.open(f"{url}/rules/draft")
        typed(browser, {"id": "hero", "why": HOSTILE, "do": {"pin": {"items": [PINNED], "slots": ["0"]}}})
        browser.until("document.querySelector('#faults .note.bad')?.textContent.includes('do.pin.slots')")
        typed(browser, {"id": "hero", "why": HOSTILE, "do": {"pin": {"items": [PINNED], "slots": [0]}}})
        browser.until("!!document.querySelector('#faults .note.good')")
        before = first(service)
        assert before.get("rule") is None and before["item_id"] != PINNED
        browser.run("document.querySelector('#show').click()")
        shown = browser.until("document.querySelector('.product.after')?.textContent")
        assert PINNED in shown and "hero" in shown and HOSTILE in shown  # as text
        browser.run("document.querySelector('#why').value = 'campaign 12'")
        browser.click("#publish")
        browser.until("location.pathname === '/rules' && !!document.querySelector('.note.good')")
        slot = wait_for(service, True)
        assert (slot["item_id"], slot["rule"]) == (PINNED, "hero")
        listed = browser.run("document.querySelector('main').textContent")
        assert HOSTILE in listed and "ana (merchandiser)" in listed and "campaign 12" in listed
        browser.open(f"{url}/rules/lab")
        browser.open(f"{url}/audit")
        browser.open(f"{url}/rules")
        browser.run("window.confirm = () => true")
        browser.click("#revert")
        browser.until("location.search === '?done=reverted' && !!document.querySelector('.note.good')")
        wait_for(service, False)
        assert browser.run("window.hacked") is None
        assert not [one for one in browser.said if "exception" in one.lower() or "Refused" in one]
        assert not [one for one in browser.asked if "http" in one and url not in one]
        assert not [one for one in browser.asked if "token" in one]
