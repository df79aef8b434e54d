"""The console: nothing without its token, and on its pages what Redis and the reports say."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from starlette.testclient import TestClient

from feature_repo.eventlog.lua import append
from feature_repo.params import load
from monitoring.alerting.lookout import Lookout
from monitoring.alerting.troubles import AlarmParams, Trouble
from monitoring.console.app import build_app
from monitoring.experiment.attribution import FeedbackParams
from monitoring.pages import interval
from monitoring.pages.desk import ConsoleParams, Desk
from serving.release import looks, state

SECRET = "the token"
BEARER = {"Authorization": f"Bearer {SECRET}"}
NOW = time.time_ns() // 1000


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


@pytest.fixture
def console(store: redis.Redis, tmp_path: Path) -> TestClient:
    for folder in ("reports", "feedback"):
        (tmp_path / folder).mkdir()
    return TestClient(build_app(desk(store, tmp_path), {"admin": SECRET}), follow_redirects=False)


def desk(store: redis.Redis, data: Path) -> Desk:
    params = ConsoleParams(audit_entries=50, looks=3, session_s=60, pictures="http://127.0.0.1:1")
    return Desk(store, data, params, load("feedback", FeedbackParams), 0.03)


def canary(store: redis.Redis) -> state.RolloutState:
    act = state.Act("ana", "the <b>weekly</b> fit", NOW, {"ndcg_at_12": 0.31})
    first = state.install(store, state.Release("a" * 16, "data/bundles/a"), act)
    return state.start_canary(store, first, state.Release("b" * 16, "data/bundles/b"), 10, "week-7", act)


def show(store: redis.Redis, arm: str, request_id: str, clicks: int) -> None:
    exposure = {
        "request_id": request_id,
        "ts": NOW,
        "unit": request_id,
        "user_id": request_id,
        "session_id": "s",
        "arm": arm,
        "bundle": "a" * 16,
        "surface": "homepage_hero",
        "items": [f"item-{i}" for i in range(10)],
        "version": 2,
    }
    store.xadd("endcap:exposures", {"exposure": orjson.dumps(exposure)})
    for i in range(clicks):
        click: dict[str, Any] = {
            "event_id": f"{request_id}-{i}",
            "event_ts": NOW + 1,
            "type": "click",
            "session_id": "s",
            "user_id": request_id,
            "request_id": request_id,
            "item_id": f"item-{i}",
        }
        append(store, i % 4, orjson.dumps(click))


def test_before_the_first_release_the_pages_say_what_to_do(console: TestClient) -> None:
    assert "endcap promote" in console.get("/", headers=BEARER).text
    assert "endcap rollout start" in console.get("/rollout", headers=BEARER).text
    assert "none yet" in console.get("/reports", headers=BEARER).text


def test_the_arms_page_has_each_arms_release_clicks_and_health(
    console: TestClient, store: redis.Redis
) -> None:
    canary(store)
    for i in range(4):
        show(store, "champion", f"u{i}", clicks=1)
    show(store, "challenger", "u9", clicks=3)
    state.publish_health(store, "challenger", requests=7, errors=2, empty=1, p99_ms=4.25)
    text = console.get("/", headers=BEARER).text
    champion, challenger = (
        text.split(f'<tr><th scope="row">{arm}</th>')[1].split("</tr>")[0]
        for arm in ("champion", "challenger")
    )
    assert "10.00 %" in champion and ">40</td>" in champion and "aaaaaaaa" in champion
    assert "30.00 %" in challenger and "bbbbbbbb" in challenger and "4.2 ms" in challenger
    show(store, "champion", "u10", clicks=1)  # what arrives between two looks at the page
    assert ">50</td>" in console.get("/", headers=BEARER).text


def test_a_new_step_starts_the_counts_again(console: TestClient, store: redis.Redis) -> None:
    running = canary(store)
    show(store, "champion", "u1", clicks=1)
    assert ">10</td>" in console.get("/", headers=BEARER).text
    state.rollback(store, running, state.Act("guard", "drop", NOW))
    assert ">10</td>" not in console.get("/", headers=BEARER).text


def test_the_audit_is_escaped_and_the_rollout_page_has_the_guards_looks(
    console: TestClient, store: redis.Redis
) -> None:
    running = canary(store)
    for i in range(5):
        look = {
            "version": running.version,
            "at_us": NOW + i * 1_000_000,
            "verdict": "HOLD",
            "reason": f"look {i}",
            "user_days": 10 * i,
            "ctr": 0.05,
            "champion_ctr": 0.05,
            "estimate": 0.01,
            "lower": None if i == 0 else -0.2 / i,
            "upper": None if i == 0 else 0.2 / i,
        }
        looks.record_look(store, look)
    text = console.get("/audit", headers=BEARER).text
    assert "<b>weekly</b>" not in text and "&lt;b&gt;weekly" in text
    assert "start_canary" in text and "install" in text and "ana" in text and "ndcg_at_12" in text
    text = console.get("/rollout", headers=BEARER).text
    assert [f"look {i}" in text for i in range(5)] == [False, False, True, True, True]  # the newest 3
    assert text.count("<polygon") == 1


def test_the_picture_covers_the_margin_and_leaves_out_looks_without_an_interval() -> None:
    assert interval.draw([{"lower": None, "upper": None}], 0.03) == ""
    look = {"lower": -0.9, "upper": 0.9, "estimate": 0.0}
    picture = str(interval.draw([look, look], 0.03))
    assert picture.count("44.0,") == 3 and "-3%" in picture


def test_reports_are_listed_newest_first_and_cannot_act_as_the_console(
    console: TestClient, tmp_path: Path
) -> None:
    for age, name in enumerate(["reports/drift.html", "feedback/metrics.svg", "reports/evaluate.json"]):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (1_700_000_000 - age, 1_700_000_000 - age))
    (tmp_path / "reports" / "rows.parquet").write_text("not for a browser")
    text = console.get("/reports", headers=BEARER).text
    assert text.index("drift.html") < text.index("metrics.svg") < text.index("evaluate.json")
    assert "rows.parquet" not in text
    served = console.get("/reports/reports/drift.html", headers=BEARER)
    assert served.text == "reports/drift.html"
    assert served.headers["content-security-policy"] == "sandbox allow-scripts"


@pytest.mark.parametrize(
    "path",
    [
        "params.yaml",
        "../secret.json",
        "reports/../../secret.json",
        "reports/x.parquet",
        "reports",
        "%00.html",
    ],
)
def test_no_other_file_can_be_read(console: TestClient, tmp_path: Path, path: str) -> None:
    (tmp_path.parent / "secret.json").write_text("secret")
    (tmp_path / "params.yaml").write_text("secret")
    (tmp_path / "reports" / "x.parquet").write_text("secret")
    response = console.get("/reports/" + path.replace("..", "%2e%2e"), headers=BEARER)
    assert response.status_code == 404 and "secret" not in response.text


def test_without_redis_the_page_says_so(tmp_path: Path) -> None:
    away = redis.Redis(port=1, retry=Retry(NoBackoff(), 0))
    app = build_app(desk(away, tmp_path), {"admin": SECRET})
    response = TestClient(app).get("/", headers=BEARER)
    assert response.status_code == 503 and "endcap up" in response.text


def test_the_overview_tells_what_is_wrong_since_when_and_what_to_run(
    store: redis.Redis, console: TestClient
) -> None:
    assert "Alarms" not in console.get("/", headers=BEARER).text
    trouble = Trouble("disk", "disk: <b>500</b> MiB are left", "endcap prune --dry-run")
    params = load("alarms", AlarmParams)
    Lookout(store, {"disk": lambda: [trouble]}, params, "simulated", lambda *_: "it answered 500").look(0)
    page = console.get("/", headers=BEARER).text
    assert "disk: &lt;b&gt;500&lt;/b&gt; MiB are left" in page and "1970-01-01 00:00 UTC" in page
    assert "<code>endcap prune --dry-run</code>" in page and "not yet: it answered 500" in page
