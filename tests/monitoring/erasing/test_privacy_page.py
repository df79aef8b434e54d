"""The privacy page in a real Chromium: a shopper is found, erased with a reason, and the receipt holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest
import redis
from shops.browser import Tab
from shops.console import running_console
from shops.small import open_home
from starlette.testclient import TestClient

from feature_repo.eventlog.keys import stream_key
from feature_repo.features.stored import USER_HISTORY
from feature_repo.online.rows import OnlineView, write_newer
from feature_repo.params import load
from feature_repo.persons import tombstones
from feature_repo.persons.privacy import persons
from monitoring.console.app import build_app
from monitoring.erasing.errands import BusyError, Errand, Errands
from monitoring.erasing.filed import folder
from monitoring.experiment.attribution import FeedbackParams
from monitoring.pages.desk import ROLES, ConsoleParams, Desk
from serving.release.state import read_audit

pytest_plugins = ("shops.browser",)
ANN = "ann@shop.example"
TOKENS = {role: f"token-of-{role}" for role in ROLES}
HOSTILE = "<img src=x onerror=window.hacked=1>"


@pytest.fixture
def desk(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A shop that knows Ann: a row and two events in its log."""
    open_home(tmp_path, monkeypatch)
    monkeypatch.setenv("REDIS_URL", redis_url)
    with redis.Redis.from_url(redis_url) as store:
        name = persons().of(ANN)
        row = USER_HISTORY.row(USER_HISTORY.new())
        write_newer(store, OnlineView(USER_HISTORY), [(name, 1, row)])
        for _ in range(2):
            store.xadd(stream_key(0), {"event": orjson.dumps({"user_id": name, "session_id": "x"})})
        yield Desk(store, tmp_path, load("console", ConsoleParams), load("feedback", FeedbackParams), 0.03)


def fill(browser: Tab, **fields: str) -> None:
    for name, value in fields.items():
        browser.run(f"document.querySelector('form.card [name={name}]').value = {value!r}")


def test_an_officer_finds_a_person_erases_and_has_a_receipt_that_holds(
    desk: Desk, browser: Tab, tmp_path: Path
) -> None:
    name = persons().of(ANN)
    with running_console(build_app(desk, TOKENS)) as url:
        browser.open(f"{url}/login")
        browser.run(
            f"document.querySelector('#token').value = {TOKENS['privacy']!r};"
            "document.querySelector('#name').value = 'olga'"
        )
        browser.click("form.door button")
        browser.until("location.pathname === '/' && document.readyState === 'complete'")
        browser.open(f"{url}/privacy")
        fill(browser, id=ANN)
        browser.click("#look")
        told = browser.until("!!document.querySelector('#erase') && document.querySelector('main').innerText")
        assert name in told and "Redis endcap:events:0" in told and "3 rows in 2 places, visits: 1" in told
        fill(browser, id=ANN, why=HOSTILE, confirm="erase")
        for width in (1280, 390):
            browser.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=900,
                deviceScaleFactor=1,
                mobile=False,
            )
            assert browser.run("document.documentElement.scrollWidth <= innerWidth")
            browser.picture(tmp_path / f"held-{width}.png")
        browser.click("#erase")
        told = browser.until(
            "!!document.querySelector('#verify') && document.querySelector('main').innerText"
        )
        assert "Erased in" in told and HOSTILE in told and "olga (privacy)" in told
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        browser.picture(tmp_path / "receipt-390.png")
        browser.click("#verify")
        browser.until("document.querySelector('.note.good')?.innerText.includes('Holds')")
        browser.open(f"{url}/audit")
        audit = browser.run("document.querySelector('main').innerText")
        assert "person looked up" in audit and "erase asked for" in audit and "receipt checked" in audit
        assert ANN not in audit and name not in audit
        assert browser.run("window.hacked") is None
        assert not [one for one in browser.asked if "ann" in one.lower() or name in one]
        (file,) = folder().glob("*.json")
        told = httpx.get(
            f"{url}/privacy/receipt/{file.name}", headers={"Authorization": f"Bearer {TOKENS['privacy']}"}
        )
        assert told.content == file.read_bytes() and ANN not in told.text and name not in told.text
    assert desk.redis.xlen(stream_key(0)) == 0
    assert persons().tombstone(name).encode() in desk.redis.smembers(tombstones.ERASED)
    assert [one["what"] for one in read_audit(desk.redis)].count("erase") == 1


@pytest.fixture
def officer(desk: Desk) -> TestClient:
    headers = {"Authorization": f"Bearer {TOKENS['privacy']}"}
    return TestClient(build_app(desk, TOKENS), headers=headers, follow_redirects=False)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"id": "bob"}, "the id that was looked up, typed once more"),
        ({"confirm": "yes"}, "confirm"),
        ({"why": " "}, "1 to 500 characters in one line"),
        ({"why": f"letter of {ANN}"}, "a reason without the id"),
        ({"why": "x" * 501}, "1 to 500 characters in one line"),
    ],
)
def test_what_is_not_confirmed_erases_nobody(
    desk: Desk, officer: TestClient, changed: dict[str, str], told: str
) -> None:
    form = {"id": ANN, "name": persons().of(ANN), "why": "a letter", "confirm": "erase"} | changed
    answer = officer.post("/privacy/erase", data=form)
    assert answer.status_code == 409 and told in answer.text
    assert desk.redis.xlen(stream_key(0)) == 2 and not folder().exists()


@pytest.mark.parametrize("name", ["../tokens.json", "x.json", "20260101T000000Z-00000000.json", "%2e%2e"])
def test_no_other_file_is_a_receipt(officer: TestClient, name: str) -> None:
    assert officer.get(f"/privacy/receipt/{name}").status_code in (404, 409)
    assert officer.post("/privacy/verify", data={"receipt": name}).status_code == 409


def test_one_errand_at_a_time_and_the_oldest_are_forgotten() -> None:
    errands = Errands()
    errands._held["other"] = Errand("erase", "p-1")
    with pytest.raises(BusyError, match=r"another search or erase is at work; allowed: one. Next: wait"):
        errands.begin(Errand("person", "p-2"), ["person", "-"])
    errands._held["other"].code = 0
    key = errands.begin(Errand("person", "p-2"), ["no-such-job"])
    found = errands.get(key)
    assert found is not None
    while found.code is None:
        time.sleep(0.05)
    assert found.code == 2 and found.wrong
