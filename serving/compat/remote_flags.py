"""OpenFeature's remote evaluation (OFREP): flags for the SDKs of any language, by the context they send.

    POST /compat/ofrep/v1/evaluate/flags/{key}   {"context": {"targetingKey": "U123", "surface": "pdp_fbt"}}
    POST /compat/ofrep/v1/evaluate/flags         the same of all: {"flags": [...]}

`targetingKey` is the id of a shopper, with `anonymous: true` of a visit, as lists are asked with. Attributes
that no audience knows are ignored.
"""

from typing import Any

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from serving.compat.receipts import JSON
from serving.errors import RequestError
from serving.flags.assignment import Evaluation
from serving.flags.evaluations import Evaluations
from serving.http.api import Desk, Handler, read_body
from serving.http.callers import admitted
from serving.http.requests import build, parse_object
from serving.types import Request

OFREP, ANYWHERE = "ofrep", "homepage_hero"


def handlers() -> tuple[tuple[str, Handler], ...]:
    """Address below the door, handler; each is a POST."""
    return ("/v1/evaluate/flags/{key}", one), ("/v1/evaluate/flags", every)


async def one(http: HttpRequest, desk: Desk) -> Response:
    key, flags = http.path_params["key"], _flags(desk)
    found = flags.of(key, await _asked(http, desk))
    if found is None:
        allowed = ", ".join(flags.keys) or "none is published"
        return _json({"key": key, "errorCode": "FLAG_NOT_FOUND", "errorDetails": f"allowed: {allowed}"}, 404)
    return _json(_told(found, flags.version), 200)


async def every(http: HttpRequest, desk: Desk) -> Response:
    flags, request = _flags(desk), await _asked(http, desk)
    found = [evaluation for key in flags.keys if (evaluation := flags.of(key, request))]
    return _json({"flags": [_told(evaluation, flags.version) for evaluation in found]}, 200)


def refused(error: RequestError) -> Response:
    """As OFREP tells it."""
    code = "TARGETING_KEY_MISSING" if error.field == "context.targetingKey" else "INVALID_CONTEXT"
    status = 400 if error.status == 422 else error.status
    return _json({"errorCode": code, "errorDetails": str(error)}, status)


async def _asked(http: HttpRequest, desk: Desk) -> Request:
    context = parse_object(await read_body(http, desk.params.max_body_bytes)).get("context")
    if not isinstance(context, dict):
        raise RequestError("context", context, "an object with targetingKey")
    if not context.get("targetingKey"):
        raise RequestError(
            "context.targetingKey", context.get("targetingKey"), "the id of a shopper or visit"
        )
    who = "session_id" if context.get("anonymous") is True else "user_id"
    place = {name: context[name] for name in ("device", "country") if context.get(name) is not None}
    told = {"surface": context.get("surface", ANYWHERE), who: context["targetingKey"], "context": place}
    request = build(told, desk.params.max_items)
    admitted(http, desk.keys, desk.gate, request).settle_here()
    return request


def _told(found: Evaluation, version: int) -> dict[str, Any]:
    told = found.told()
    return {"key": told.pop("flag_key"), **told, "metadata": {"version": version}}


def _flags(desk: Desk) -> Evaluations:
    if desk.evaluations is None:
        raise RequestError("path", "flags", "a service that knows experiments", status=404)
    return desk.evaluations


def _json(told: dict[str, Any], status: int) -> Response:
    return Response(orjson.dumps(told), status, {"Cache-Control": "private, no-store"}, media_type=JSON)
