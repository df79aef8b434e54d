"""The routes in OpenAPI 3.1, with an example each: /docs.json, and what the page at / is made of."""

from functools import cache
from typing import Any

import orjson

from feature_repo.ports import CATALOGUE, PUBLISHABLE, SECRET
from serving.access.credentials import PARAMETER
from serving.explain.shape import explanation
from serving.http import schemas
from serving.http.schemas import Schema
from serving.params import Serving

JSON = "application/json"
VISIT = {"user_id": "U123", "session_id": "S1"}
EXAMPLES: dict[str, dict[str, Any]] = {
    "/v1/recommend": {"surface": "homepage_hero", **VISIT, "limit": 3, "fields": ["title", "price"]},
    "/v1/page": {
        "surfaces": [{"surface": "homepage_hero", "limit": 3}, {"surface": "similar_items"}],
        **VISIT,
    },
    "/v1/rank": {"surface": "category_sort", "session_id": "S1", "items": ["P0007", "P0042", "P0100"]},
    "/v1/items": {"items": [{"item_id": "P0042", "price": 12.5, "stock": 3}]},
    "/v1/explain": {"surface": "homepage_hero", **VISIT, "limit": 3, "item_ids": ["P0042"]},
    "/v1/events": {"events": [{"type": "product_viewed", **VISIT, "item_id": "P0042"}]},
}
WHY = {
    "400": "no JSON object, or a key twice",
    "401": "no key where one is asked for, or an unknown one",
    "403": "a key that does not open this, or not from there; or none is configured",
    "413": "the body is too large",
    "422": "a field is wrong; it is named, with what is allowed",
    "429": "too often; Retry-After says when to ask again",
    "503": "no release yet, or events cannot be stored right now; Retry-After says when to try again",
}

KEYS = {
    SECRET: "the shop's own servers: debug, as_of, items, and questions for any shopper at any rate",
    PUBLISHABLE: "pages of a storefront; needed where access.keys.required is set",
    CATALOGUE: "POST /v1/items alone",
}
ANYBODY: list[dict[str, list[str]]] = [{}, {"in_address": []}, {PUBLISHABLE: []}, {SECRET: []}]


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(schema: Schema, kind: str = JSON) -> Schema:
    return {kind: {"schema": schema}}


def _refusals(*statuses: str) -> Schema:
    found: Schema = {}
    for status in statuses:
        found[status] = {"description": WHY[status], "content": _content(_ref("refusal"))}
    if "503" in found:
        found["503"]["content"] = _content(_ref("unavailable"))
    for status in {"429", "503"} & {*found}:
        found[status]["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return found


def _posted(path: str, what: str, schema: Schema, answers: Schema) -> Schema:
    """A POST of JSON, whatever its Content-Type says: text/plain needs no preflight."""
    told = {"schema": schema, "examples": {"one": {"value": EXAMPLES[path]}}}
    body = {"required": True, "content": {JSON: told}}
    name = path.rpartition("/")[2]
    return {
        "operationId": name,
        "summary": what,
        "requestBody": body,
        "responses": answers | _refusals("400", "401", "403", "413", "422", "429", "503"),
        "security": ANYBODY,
    }


def _query(params: Serving) -> list[Schema]:
    """The parameters of GET /v1/recommend: the fields of its body, those of `context` side by side."""
    every = schemas.fields(params)
    flat = {name: schema for name, schema in every.items() if name != "context"}
    flat |= every["context"]["properties"]
    found = []
    for name, schema in flat.items():
        one: Schema = {"name": name, "in": "query", "required": name == "surface", "schema": _in_text(schema)}
        if name == "fields":  # separated by commas
            one |= {"style": "form", "explode": False, "schema": one["schema"] | {"minItems": 1}}
        found.append(one)
    found[0]["example"] = EXAMPLES["/v1/recommend"]["surface"]
    return found


def _in_text(schema: Schema) -> Schema:
    """A query string holds no null, and no list that is empty."""
    if "anyOf" in schema:
        return schema | {"anyOf": [one for one in schema["anyOf"] if one["type"] != "null"]}
    kind = schema["type"]
    return schema | {"type": kind[0] if isinstance(kind, list) else kind}


def document(params: Serving) -> dict[str, Any]:
    """The OpenAPI document of the storefront plane."""
    one = {"200": {"description": "the list", "content": _content(_ref("answer"))}}
    lists = schemas.object_of({"surfaces": {"type": "array", "items": _ref("answer")}}, "surfaces")
    rejected = {"description": "how many were rejected; absent for none", "schema": {"type": "integer"}}
    told = {
        "202": {
            "description": "at least one event is stored",
            "headers": {"Endcap-Rejected": rejected},
            "content": _content(_ref("receipt")),
        }
    }
    wait = {"name": "wait", "in": "query", "schema": {"type": "string", "enum": ["0", "1"]}}
    wait["description"] = "1: answer once the events are in the features"
    by_query = {
        "operationId": "recommend_by_query",
        "summary": "The same as a GET, which a cache in front may keep",
        "parameters": _query(params),
        "responses": one | _refusals("401", "403", "422", "429", "503"),
        "security": ANYBODY,
    }
    events = _posted("/v1/events", "Tell what the shopper did", schemas.events(params), told)
    events["responses"]["422"]["content"] = _content({"anyOf": [_ref("refusal"), _ref("receipt")]})
    said = {"202": told["202"] | {"description": "stored", "content": _content(_ref("listing_receipt"))}}
    items = _posted(
        "/v1/items", "Tell what the shop has, with the catalogue key", schemas.changes(params), said
    )
    items["responses"]["422"]["content"] = _content({"anyOf": [_ref("refusal"), _ref("listing_receipt")]})
    why = {"200": {"description": "the list and why", "content": _content(explanation())}}
    explain = _posted(
        *("/v1/explain", "Why a list is as it is, with the secret key", schemas.explain(params), why)
    )
    paths = {
        "/v1/recommend": {
            "post": _posted("/v1/recommend", "Fill the slots of a surface", schemas.recommend(params), one),
            "get": by_query,
        },
        "/v1/page": {
            "post": _posted(
                *("/v1/page", "Fill the shelves of a page, no product twice", schemas.page(params)),
                {"200": {"description": "a list each, in their order", "content": _content(lists)}},
            )
        },
        "/v1/rank": {"post": _posted("/v1/rank", "Order a given list", schemas.rank(params), one)},
        "/v1/events": {"post": events | {"parameters": [wait]}},
        "/v1/items": {
            "post": items | {"parameters": [wait], "security": [{"catalogue": []}, {"secret": []}]}
        },
        "/v1/explain": {"post": explain | {"security": [{"secret": []}]}},
        "/livez": {"get": _plain("livez", "The process lives")},
        "/readyz": {
            "get": _plain("readyz", "A release is loaded and nothing that answers rest on is too old")
        },
        "/metrics": {"get": _plain("metrics", "For Prometheus")},
    }
    paths["/readyz"]["get"]["responses"]["503"] = {"description": "not ready; says why"}
    components = {
        "answer": schemas.answer(),
        "receipt": schemas.receipt(),
        "listing_receipt": schemas.listing_receipt(),
        "refusal": schemas.refusal(),
        "unavailable": schemas.unavailable(),
    }
    info = {"title": "Endcap", "version": "1", "description": "Recommendations for an online shop."}
    keys = {name: {"type": "http", "scheme": "bearer", "description": what} for name, what in KEYS.items()}
    public = "a publishable key where no header can be sent"
    keys["in_address"] = {"type": "apiKey", "in": "query", "name": PARAMETER, "description": public}
    parts = {"schemas": components, "securitySchemes": keys}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": parts}


def _plain(name: str, what: str) -> Schema:
    answer = {"description": "yes", "content": _content({"type": "string"}, "text/plain")}
    return {"operationId": name, "summary": what, "responses": {"200": answer}}


@cache
def document_bytes(params: Serving) -> bytes:
    """As JSON; made once."""
    return orjson.dumps(document(params))
