"""A page of another origin reads answers where it is named, exactly, and gets no header where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shops.storefront import HERO, PAGE, Shop, make_home, open_shop

from feature_repo.errors import ParamsError
from serving.http.api import METHODS
from serving.http.origins import Cors

ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
NEARLY = (
    *(PAGE + tail for tail in ("/", ":443", ".evil.example", "@evil.example", " ", "\x0b")),
    *("http://shop.example", "https://SHOP.example", "https://shop.exampl", "https://evil.example"),
    *("https://a.shop.example", "null", "*", "", f"{PAGE}, {PAGE}", f"{PAGE} https://evil.example"),
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[Shop]:
    with pytest.MonkeyPatch.context() as patch:
        home = make_home(tmp_path_factory.mktemp("home"))
        patch.setenv("ENDCAP_HOME", str(home[0]))
        with open_shop(*home, redis_server) as opened:
            yield opened


def allowing(response: Any) -> dict[str, str]:
    return {name: text for name, text in response.headers.items() if name.startswith("access-control")}


@pytest.mark.parametrize("path", METHODS)
def test_a_named_origin_may_ask_with_json_and_remembers_it(shop: Shop, path: str) -> None:
    response = shop.client.options(path, headers={"Origin": PAGE, **ASKS})
    assert response.status_code == 204 and response.content == b""
    found = allowing(response)
    assert found["access-control-allow-origin"] == PAGE
    assert found["access-control-allow-methods"] == METHODS[path]
    assert "content-type" in found["access-control-allow-headers"]
    assert int(found["access-control-max-age"]) > 0
    assert response.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", NEARLY)
def test_any_other_origin_gets_no_header_at_all(shop: Shop, origin: str) -> None:
    sent = {"Origin": origin}
    preflight = shop.client.options("/v1/recommend", headers={**sent, **ASKS})
    assert preflight.status_code == 403 and preflight.json()["error"]["field"] == "origin"
    answers = (
        shop.client.post("/v1/recommend", json=HERO, headers=sent),
        shop.client.post("/v1/recommend", json={}, headers=sent),
        shop.client.get("/v1/nothing", headers=sent),
    )
    for response in (preflight, *answers):
        assert not allowing(response) and response.headers["vary"] == "Origin"


def test_answers_and_refusals_are_read_by_a_named_origin_and_no_cookie_is_asked_for(shop: Shop) -> None:
    for path, body, status in (
        ("/v1/recommend", HERO, 200),
        ("/v1/recommend", {"surface": 1}, 422),
        ("/v1/events?wait=1", {"events": [{"type": "search", "session_id": "s"}, 7]}, 202),
        ("/v1/nothing", {}, 404),
    ):
        response = shop.client.post(path, json=body, headers={"Origin": PAGE})
        assert response.status_code == status
        found = allowing(response)
        assert found.pop("access-control-allow-origin") == PAGE
        assert set(found) == {"access-control-expose-headers"}  # and no credentials, no wildcard


def test_a_cache_never_gives_the_answer_without_an_origin_to_a_page(shop: Shop) -> None:
    assert shop.client.get("/v1/recommend?surface=pdp_fbt").headers["vary"] == "Origin"


@pytest.mark.parametrize(("path", "allow"), METHODS.items())
def test_options_without_an_origin_tells_the_methods(shop: Shop, path: str, allow: str) -> None:
    response = shop.client.options(path)
    assert (response.status_code, response.headers["allow"]) == (204, f"{allow}, OPTIONS")
    refused = shop.client.delete(path, headers={"Origin": PAGE})
    assert (refused.status_code, refused.headers["allow"]) == (405, allow)
    assert shop.client.options("/v1/nothing").status_code == 404


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "null", "", "shop.example", "https://shop.example/", "https://Shop.example", "https://é.eu"),
        *("https://*.example", "https://shop.example:443", "http://shop.example:80", "ftp://shop.example"),
        "https://a b",
    ],
)
def test_what_no_browser_sends_is_refused_in_params(origin: str) -> None:
    with pytest.raises(ParamsError, match=r"cors\.origins: .* is not an origin; allowed: a scheme, a host"):
        Cors((origin,), False, 60)


def test_by_default_no_origin_is_named_but_the_demo_shops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_STOREFRONT_PORT", "7003")
    assert Cors((), False, 60).allowed() == frozenset()
    assert Cors((), True, 60).allowed() == {"http://127.0.0.1:7003", "http://localhost:7003"}


@given(st.from_regex(r"https?://[a-z0-9]{1,9}(\.[a-z]{2,4}){0,2}(:8[0-9]{3})?", fullmatch=True))
def test_an_origin_as_browsers_send_it_is_taken(origin: str) -> None:
    assert Cors((origin,), False, 60).allowed() == {origin}
