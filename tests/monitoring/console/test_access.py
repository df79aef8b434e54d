"""Who may open the console: tokens, sessions, forms, and each role against each route."""

from __future__ import annotations

import hashlib
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from itsdangerous import TimestampSigner
from starlette.testclient import TestClient

from feature_repo import ports
from feature_repo.errors import ParamsError
from feature_repo.files import secrets_in
from feature_repo.params import load
from monitoring.console import access
from monitoring.console.access import Keys
from monitoring.console.app import build_app
from monitoring.console.sitemap import PAGES
from monitoring.console.wall import COOKIE, DOOR
from monitoring.experiment.attribution import FeedbackParams
from monitoring.pages.desk import ROLES, ConsoleParams, Desk

TOKENS = {role: f"token of {role}" for role in ROLES}
HTML = {"Accept": "text/html"}


@pytest.fixture
def console(redis_url: str, tmp_path: Path) -> Iterator[TestClient]:
    with redis.Redis.from_url(redis_url) as store:
        yield client(store, tmp_path)


def client(store: redis.Redis, data: Path, tokens: dict[str, str] = TOKENS) -> TestClient:
    params = ConsoleParams(audit_entries=5, looks=3, session_s=60, pictures="http://127.0.0.1:1")
    desk = Desk(store, data, params, load("feedback", FeedbackParams), 0.03)
    return TestClient(build_app(desk, tokens), follow_redirects=False)


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}"}


def sign_in(console: TestClient, token: str, name: str = "") -> Any:
    form = csrf(console.get("/login").text)
    return console.post("/login", data={"csrf": form, "token": token, "name": name})


def csrf(page: str) -> str:
    found = re.search('name="csrf" value="([0-9a-f]{64})"', page)
    assert found
    return found[1]


@pytest.mark.parametrize("path", ["/", "/rollout", "/reports", "/reports/reports/x.html", "/nowhere"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic dGhlIHRva2Vu"},
        {"Authorization": "Bearer "},
        {"Cookie": f"{COOKIE}=wrong"},
        {"Cookie": f"{COOKIE}=admin"},
        {"Cookie": f"{COOKIE}={TOKENS['admin'].replace(' ', '_')}"},
        {"Cookie": f"{COOKIE}={Keys({'admin': 'another token'}, 60).begin('admin', 'ana')}"},
        {"Cookie": f"{COOKIE}={Keys(TOKENS, 60).begin('viewer', '').replace('viewer', 'admin')}"},
        {"Authorization": "Bearer \xe9".encode("latin-1")},
    ],
)
def test_nothing_is_shown_without_a_token(console: TestClient, path: str, headers: Any) -> None:
    response = console.get(path, headers=headers)
    assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
    assert not any(token in response.text for token in TOKENS.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.method} {page.path}")
@pytest.mark.parametrize("role", ROLES)
def test_each_role_opens_what_its_row_says_and_nothing_else(
    console: TestClient, role: str, page: Any
) -> None:
    path = re.sub(r"\{(\w+):int\}", "1", page.path)
    path = re.sub(r"\{[^}]+\}", "x", path)
    response = console.request(page.method, path, headers=bearer(role))
    if role in page.roles:
        assert response.status_code not in (401, 403, 405), response.text
    else:
        assert response.status_code == 403
        assert f"role: {role} may not {page.method}" in response.text and "admin" in response.text


@pytest.mark.parametrize("role", ROLES)
def test_the_menu_has_what_the_role_may_and_no_more(console: TestClient, role: str) -> None:
    assert sign_in(console, TOKENS[role]).status_code == 303
    menu = console.get("/").text.partition("</nav>")[0]
    for page in PAGES:
        if page.title:
            assert (f'href="{page.path}"' in menu.partition("<nav")[2]) == (role in page.roles), page.path


def test_a_person_signs_in_with_the_form_and_out_again(
    console: TestClient, redis_url: str, tmp_path: Path
) -> None:
    asked = console.get("/", headers=HTML)
    assert asked.status_code == 401 and 'action="/login"' in asked.text
    assert sign_in(console, "wrong").status_code == 401
    entered = sign_in(console, TOKENS["release"], "ana <b>")
    assert entered.status_code == 303
    cookie = next(c for c in entered.headers.get_list("set-cookie") if c.startswith(f"{COOKIE}="))
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Max-Age=60" in cookie
    assert TOKENS["release"] not in cookie
    text = console.get("/").text
    assert "ana &lt;b&gt;" in text and "ana <b>" not in text
    with redis.Redis.from_url(redis_url) as store:
        restarted = client(store, tmp_path)
    restarted.cookies.update(console.cookies)
    assert restarted.get("/").status_code == 200
    assert console.post("/logout", data={"csrf": csrf(text)}).status_code == 303
    assert console.get("/").status_code == 401


def test_a_session_ends_by_its_age_and_with_its_token(
    console: TestClient, redis_url: str, tmp_path: Path
) -> None:
    class Earlier(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(time.time()) - 61

    signer = Earlier(TOKENS["admin"], salt="endcap console admin", digest_method=hashlib.sha256)
    console.cookies.set(COOKIE, signer.sign("admin..x").decode())
    assert console.get("/", headers=HTML).status_code == 401
    console.cookies.set(COOKIE, Keys(TOKENS, 60).begin("admin", ""))
    assert console.get("/", headers=HTML).status_code == 200
    with redis.Redis.from_url(redis_url) as store:
        changed = client(store, tmp_path, TOKENS | {"admin": "a new one"})
    changed.cookies.update(console.cookies)
    assert changed.get("/").status_code == 401


def test_a_form_of_another_site_or_session_changes_nothing(console: TestClient) -> None:
    sign_in(console, TOKENS["admin"])
    own = csrf(console.get("/").text)
    for form, headers in (
        ({}, {}),
        ({"csrf": ""}, {}),
        ({"csrf": Keys(TOKENS, 60).form_of("another session")}, {}),
        ({"csrf": own}, {"Origin": "http://evil.example"}),
        ({"csrf": own}, {"Origin": "null"}),
        ({"csrf": own}, {"Sec-Fetch-Site": "cross-site"}),
    ):
        refused = console.post("/logout", data=form, headers=headers)
        assert refused.status_code == 403 and "allowed" in refused.text
    assert console.get("/").status_code == 200
    there = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
    assert console.post("/logout", data={"csrf": own}, headers=there).status_code == 303


def test_a_sign_in_that_another_site_sends_is_none(console: TestClient) -> None:
    for form in ({"token": TOKENS["admin"]}, {"token": TOKENS["admin"], "csrf": "0" * 64}):
        assert console.post("/login", data=form).status_code == 403
    assert console.post("/login", content=b"token=" + b"x" * 5000).status_code == 413
    assert console.post("/login", content=b"token=\xff").status_code == 400
    assert DOOR in console.cookies or console.get("/login").cookies


@pytest.mark.parametrize("path", ["/", "/login", "/style.css", "/console.js", "/nowhere"])
def test_every_answer_has_the_policy_that_runs_no_stranger(console: TestClient, path: str) -> None:
    policy = console.get(path, headers=bearer("admin")).headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def test_each_role_has_a_token_made_once_and_the_earlier_one_is_the_admins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(access.TOKEN, raising=False)
    monkeypatch.setattr(ports, "tokens_file", lambda: tmp_path / "run" / "tokens.json")
    monkeypatch.setattr(access, "tokens_file", ports.tokens_file)
    secrets_in(ports.tokens_file(), "catalogue")
    (tmp_path / "run" / "console.token").write_text("earlier\n")
    access.make_tokens()
    made = access.read_tokens()
    assert set(made) == set(ROLES) and len(set(made.values())) == len(ROLES) and made["admin"] == "earlier"
    assert not (tmp_path / "run" / "console.token").exists() and ports.token("catalogue")
    access.make_tokens()
    assert access.read_tokens() == made
    assert stat.S_IMODE(ports.tokens_file().stat().st_mode) == 0o600
    monkeypatch.setenv(access.TOKEN, "given")
    assert access.read_tokens()["admin"] == "given"
    monkeypatch.setenv(access.TOKEN, made["viewer"])
    with pytest.raises(ParamsError, match="two roles have one token"):
        access.read_tokens()
