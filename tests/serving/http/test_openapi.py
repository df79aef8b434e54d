"""/docs.json says what the routes do: what it allows is accepted, what it forbids is refused, by the service.

schemathesis makes the requests from the document alone, and judges the answers by it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import content_type_conformance, not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from shops.storefront import SECRET

from feature_repo.params import load
from serving.http.api import HEALTH, METHODS
from serving.http.assets import ASSETS
from serving.http.openapi import EXAMPLES, document
from serving.params import Serving

if TYPE_CHECKING:
    from shops.service import Service

pytest_plugins = ("shops.service",)
ROUTES = (
    "POST /v1/recommend",
    "GET /v1/recommend",
    "POST /v1/page",
    "POST /v1/rank",
    "POST /v1/events",
    "POST /v1/items",
    "POST /v1/explain",
)
KEY = SECRET  # opens every route
JUDGES = (
    *(not_a_server_error, response_schema_conformance),
    *(status_code_conformance, content_type_conformance),
)
TIMES = ("event_ts", "ts", "sent_at")
bounded = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
    derandomize=True,
)


@pytest.fixture(scope="module")
def docs(service: Service) -> Iterator[Any]:
    yield schemathesis.openapi.from_url(f"{service.url}/docs.json")


def asked(docs: Any, route: str, mode: GenerationMode) -> Any:
    """A strategy of requests to `route`."""
    method, path = route.split()
    return docs[path][method].as_strategy(generation_mode=mode)


def sendable(case: Any) -> Any:
    """As by a client that knows what no schema says: how a whole number is written, and what time it is.

    Nobody here applies events, so that none are waited for.
    """
    case.body = whole(case.body)
    if "wait" in (case.query or {}):
        case.query["wait"] = "0"
    if batch := {"/v1/events": "events", "/v1/items": "items"}.get(case.path):
        for event in (case.body, *case.body[batch]):
            event |= {name: time.time_ns() // 1000 for name in TIMES if event.get(name) is not None}
    return case


def whole(value: Any) -> Any:
    """3 for 3.0, wherever it stands."""
    if isinstance(value, dict):
        return {name: whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def told_apart(name: str, value: Any) -> bool:
    """Whether a query string can say it: nothing is sent of an empty value, one text is a list of one."""
    lists = name in ("items", "cart", "exclude")
    return value not in ({}, []) and (not lists or isinstance(value, list | dict))


@pytest.mark.parametrize("route", ROUTES)
def test_what_the_document_allows_is_accepted(service: Service, docs: Any, route: str) -> None:
    @bounded
    @given(case=asked(docs, route, GenerationMode.POSITIVE))
    def check(case: Any) -> None:
        answer = sendable(case).call(headers=KEY)
        assert answer.status_code in (200, 202), (case.body, case.query, answer.text[:500])
        assert "endcap-rejected" not in answer.headers, answer.text[:500]
        case.validate_response(answer, checks=JUDGES)

    check()


@pytest.mark.parametrize("route", ROUTES)
def test_what_the_document_forbids_is_refused(service: Service, docs: Any, route: str) -> None:
    @bounded
    @given(case=asked(docs, route, GenerationMode.NEGATIVE))
    def check(case: Any) -> None:
        assume(all(map(told_apart, *zip(*(case.query or {"": ""}).items(), strict=True))))
        keyless = "Authorization" in (case.headers or {})  # what is wrong: ours would mend it
        answer = case.call(headers={} if keyless else KEY)
        some = answer.status_code == 202 and int(answer.headers.get("endcap-rejected", ["0"])[0]) > 0
        assert some or 400 <= answer.status_code < 500, (case.body, dict(case.query or {}), answer.text[:500])
        case.validate_response(answer, checks=(not_a_server_error, response_schema_conformance))

    check()


def test_every_route_is_described_and_the_document_is_openapi(service: Service) -> None:
    told = httpx.get(f"{service.url}/docs.json").json()
    assert told["openapi"].startswith("3.1")
    described = {path: ", ".join(sorted(map(str.upper, methods))) for path, methods in told["paths"].items()}
    assert described == {p: m for p, m in (METHODS | HEALTH).items() if p not in (*ASSETS, "/docs.json")}
    for path, methods in told["paths"].items():
        for method, route in methods.items():
            assert route["summary"] and route["operationId"], (path, method)


@pytest.mark.parametrize("path", EXAMPLES)
def test_an_example_is_what_its_schema_says_and_is_accepted(service: Service, path: str) -> None:
    told = document(load("serving", Serving))
    content = told["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    jsonschema.Draft202012Validator(content["schema"]).validate(EXAMPLES[path])
    assert httpx.post(service.url + path, json=EXAMPLES[path], headers=KEY).status_code in (200, 202)


def test_the_page_at_the_root_and_its_files_name_no_other_host_and_are_cached(service: Service) -> None:
    for path, asset in ASSETS.items():
        answer = httpx.get(service.url + path)
        assert answer.status_code == 200 and "http" not in answer.text.replace('"http:", "https:"', "")
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["etag"] == asset.headers["ETag"]
        again = httpx.get(service.url + path, headers={"If-None-Match": f'W/{answer.headers["etag"]}, "x"'})
        assert (again.status_code, again.content) == (304, b"")
    assert len(ASSETS["/endcap.js"].body) < 6_000
    assert httpx.get(f"{service.url}/static_content/swagger-ui.css").status_code == 404  # BentoML's own


def test_the_types_of_the_script_have_the_fields_of_answers_and_events() -> None:
    from feature_repo.events import NAMES
    from feature_repo.features.catalogue import SHOWN
    from serving.types import Answer

    types = (Path(__file__).resolve().parents[3] / "serving" / "http" / "endcap.d.ts").read_text()
    added = {"event_id", "event_ts", "created_ts", "user_id", "session_id", "consent"}
    for name in {*NAMES, *SHOWN, *Answer.__slots__} - added - {"debug", "products", "json"}:
        assert f"  {name}: " in types or f"  {name}?: " in types, name
