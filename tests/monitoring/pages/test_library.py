"""Reports in a real Chromium: links open for who has signed in, though no report acts as the console."""

from __future__ import annotations

from pathlib import Path

import redis
from shops.browser import Tab
from shops.console import running_console

from feature_repo.params import load
from monitoring.console.app import build_app
from monitoring.experiment.attribution import FeedbackParams
from monitoring.pages.desk import ConsoleParams, Desk

pytest_plugins = ("shops.browser",)


def test_a_link_from_report_to_report_is_followed_and_no_report_reads_the_console(
    browser: Tab, redis_url: str, tmp_path: Path
) -> None:
    docs = tmp_path / "reports/data_docs"
    docs.mkdir(parents=True)
    reads = (
        "fetch('/audit').then((r) => r.text()).then((t) => document.title = t, () => document.title = 'no')"
    )
    (docs / "index.html").write_text(f"<a id=one href=one.html>one</a><script>{reads}</script>")
    (docs / "one.html").write_text("<p id=found>a suite of expectations")
    params = ConsoleParams(audit_entries=50, looks=3, session_s=60, pictures="http://127.0.0.1:1")
    with redis.Redis.from_url(redis_url) as store:
        app = build_app(
            Desk(store, tmp_path, params, load("feedback", FeedbackParams), 0.03), {"viewer": "t"}
        )
        with running_console(app) as url:
            browser.open(f"{url}/login")
            browser.run("document.querySelector('#token').value = 't'")
            browser.click("form.door button")
            browser.until("location.pathname === '/' && document.readyState === 'complete'")
            browser.open(f"{url}/reports/reports/data_docs/index.html")
            browser.until("document.title === 'no'")
            browser.click("#one")
            browser.until("document.querySelector('#found')?.textContent === 'a suite of expectations'")
