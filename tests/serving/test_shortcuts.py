"""What goes past the frameworks' layers is answered as if it had gone through them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx
from shops.service import Service
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.http.api import METHODS, build_app
from serving.http.origins import Cors
from serving.shortcuts import Direct, Shortcuts

pytest_plugins = ("shops.service",)
ASKED = {"surface": "homepage_hero", "session_id": "s1", "limit": 3}


async def _named(request: Request) -> Response:
    return PlainTextResponse(f"{request.method} {(await request.body()).decode()}")


def through(paths: Mapping[tuple[str, str], object]) -> TestClient:
    async def slowly(request: Request) -> Response:
        return PlainTextResponse("by the router")

    router = Starlette(routes=[Route("/{path:path}", slowly, methods=["GET", "POST", "HEAD"])])
    return TestClient(Shortcuts(router, dict.fromkeys(paths, _named)))  # type: ignore[arg-type]


def test_only_the_very_method_and_path_is_a_shortcut() -> None:
    client = through({("POST", "/v1/rank"): None})
    assert client.post("/v1/rank", content="x").text == "POST x"
    for method, path in (
        ("GET", "/v1/rank"),
        ("POST", "/v1/rank/"),
        ("POST", "/v1//rank"),
        ("POST", "/rank"),
    ):
        assert client.request(method, path).text == "by the router"


def test_what_is_not_ours_is_the_frameworks() -> None:
    async def ours(scope: object, receive: object, send: object) -> None:
        await PlainTextResponse("ours")(scope, receive, send)  # type: ignore[arg-type]

    async def theirs(scope: object, receive: object, send: object) -> None:
        await PlainTextResponse("theirs")(scope, receive, send)  # type: ignore[arg-type]

    client = TestClient(Direct(theirs, ours))  # type: ignore[arg-type]
    answers = [client.get(path).text for path in ("/v1/recommend", "/v1/x", "/readyz", "/v2/", "/")]
    assert answers == ["ours", "ours", "theirs", "theirs", "theirs"]


def test_every_route_of_ours_has_its_shortcut() -> None:
    """By what documents them: a route that is added later is not left to the long way unseen."""
    app = build_app(Cors((), False, 60))
    (named,) = [one.kwargs["endpoints"] for one in app.user_middleware if one.cls is Shortcuts]
    wanted = {
        (method, path)
        for path, methods in METHODS.items()
        for method in re.findall(r"\w+", str(methods))
        if path.startswith("/v1/")
    }
    assert set(named) == wanted


def test_a_running_service_refuses_and_answers_on_the_short_way_as_on_the_long_one(service: Service) -> None:
    def told(method: str, path: str, **options: object) -> httpx.Response:
        return httpx.request(method, f"{service.url}{path}", timeout=10, **options)  # type: ignore[arg-type]

    assert len(told("POST", "/v1/recommend", json=ASKED).json()["items"]) == 3
    assert told("POST", "/v1/recommend", content="{").status_code == 400
    refused = told("DELETE", "/v1/recommend")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST")
    assert told("HEAD", "/v1/recommend", params={"surface": "homepage_hero"}).content == b""
    origin = {"origin": "http://127.0.0.1:3002", "access-control-request-method": "POST"}
    assert told("OPTIONS", "/v1/recommend", headers=origin).status_code == 204
    assert {told("POST", "/v1/recommend", json=ASKED).headers["vary"], refused.headers["vary"]} == {"Origin"}
