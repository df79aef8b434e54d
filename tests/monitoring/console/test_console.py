"""The console: nothing without its token, and on its pages what Redis and the reports say."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from itsdangerous import TimestampSigner
from redis.backoff import NoBackoff
from redis.retry import Retry
from starlette.testclient import TestClient

from feature_repo.eventlog.lua import append
from feature_repo.params import load
from monitoring.console import interval
from monitoring.console.access import COOKIE, TOKEN, console_token, sessions
from monitoring.console.app import ConsoleParams, build_app
from monitoring.experiment.attribution import FeedbackParams
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
    params = ConsoleParams(audit_entries=50, looks=3, session_s=60)
    feedback = load("feedback", FeedbackParams)
    return TestClient(build_app(store, tmp_path, SECRET, params, feedback, 0.03), follow_redirects=False)


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


@pytest.mark.parametrize("path", ["/", "/rollout", "/reports", "/reports/reports/x.html", "/nowhere"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic dGhlIHRva2Vu"},
        {"Authorization": "Bearer "},
        {"Cookie": f"{COOKIE}=wrong"},
        {"Cookie": f"{COOKIE}={SECRET}"},
        {"Cookie": f"{COOKIE}={sessions('another token').sign('x').decode()}"},
        {"Authorization": "Bearer \xe9".encode("latin-1")},
    ],
)
def test_nothing_is_shown_without_the_token(console: TestClient, path: str, headers: Any) -> None:
    response = console.get(path, headers=headers)
    assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
    assert SECRET not in response.text


def test_a_browser_is_shown_the_form_and_a_right_token_begins_a_session(
    console: TestClient, store: redis.Redis, tmp_path: Path
) -> None:
    asked = console.get("/", headers={"Accept": "text/html"})
    assert asked.status_code == 401 and 'action="/login"' in asked.text
    assert console.post("/login", data={"token": "wrong"}).status_code == 401
    assert console.post("/login", content=b"token=" + b"x" * 5000).status_code == 413
    entered = console.post("/login", data={"token": SECRET})
    assert entered.status_code == 303
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert SECRET not in cookie and "Max-Age=60" in cookie
    assert console.get("/").status_code == 200  # the client keeps it
    other = console.post("/login", data={"token": SECRET}).headers["set-cookie"]
    assert other.split(";")[0] != cookie.split(";")[0]  # of another session
    params = ConsoleParams(audit_entries=5, looks=3, session_s=60)
    restarted = TestClient(build_app(store, tmp_path, SECRET, params, load("feedback", FeedbackParams), 0.03))
    restarted.cookies.update(console.cookies)
    assert restarted.get("/").status_code == 200


def test_a_session_ends_and_leads_back_to_the_form(console: TestClient) -> None:
    class Earlier(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(time.time()) - 61

    earlier = Earlier(SECRET, salt="endcap console session", digest_method=hashlib.sha256).sign("x").decode()
    console.cookies.set(COOKIE, earlier)
    ended = console.get("/", headers={"Accept": "text/html"})
    assert ended.status_code == 401 and 'action="/login"' in ended.text
    console.cookies.set(COOKIE, sessions(SECRET).sign("x").decode())
    assert console.get("/", headers={"Accept": "text/html"}).status_code == 200


def test_a_token_is_made_once_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    made = console_token(tmp_path / "run")
    assert len(made) >= 32 and console_token(tmp_path / "run") == made
    assert stat.S_IMODE((tmp_path / "run" / "console.token").stat().st_mode) == 0o600
    monkeypatch.setenv(TOKEN, "given")
    assert console_token(tmp_path / "run") == "given"


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
        text.split(f"<tr><td>{arm}</td>")[1].split("</tr>")[0] for arm in ("champion", "challenger")
    )
    assert "10.00 %" in champion and "<td>40</td>" in champion and "aaaaaaaa" in champion
    assert "30.00 %" in challenger and "bbbbbbbb" in challenger and "4.2 ms" in challenger
    show(store, "champion", "u10", clicks=1)  # what arrives between two looks at the page
    assert "<td>50</td>" in console.get("/", headers=BEARER).text


def test_a_new_step_starts_the_counts_again(console: TestClient, store: redis.Redis) -> None:
    running = canary(store)
    show(store, "champion", "u1", clicks=1)
    assert "<td>10</td>" in console.get("/", headers=BEARER).text
    state.rollback(store, running, state.Act("guard", "drop", NOW))
    assert "<td>10</td>" not in console.get("/", headers=BEARER).text


def test_the_rollout_page_has_the_audit_log_escaped_and_the_guards_looks(
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
    text = console.get("/rollout", headers=BEARER).text
    assert "<b>weekly</b>" not in text and "&lt;b&gt;weekly" in text
    assert "start_canary" in text and "install" in text and "ana" in text and "ndcg_at_12" in text
    assert [f"look {i}" in text for i in range(5)] == [False, False, True, True, True]  # the newest 3
    assert text.count("<polygon") == 1


def test_the_picture_covers_the_margin_and_leaves_out_looks_without_an_interval() -> None:
    assert interval.draw([{"lower": None, "upper": None}], 0.03) == ""
    look = {"lower": -0.9, "upper": 0.9, "estimate": 0.0}
    picture = str(interval.draw([look, look], 0.03))
    assert picture.count("28.0,") == 3 and "-3%" in picture


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
    feedback = load("feedback", FeedbackParams)
    app = build_app(away, tmp_path, SECRET, ConsoleParams(5, 60, 5), feedback, 0.03)
    response = TestClient(app).get("/", headers=BEARER)
    assert response.status_code == 503 and "endcap up" in response.text
