"""What became of another system's body, and how that system would have said it."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.responses import Response

from serving.errors import RequestError

JSON = "application/json"
# A GIF of one transparent point.
PIXEL = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\4\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"


@dataclass
class Taken:
    """Counts are of their events, not of ours: one order of three lines is one."""

    body: Any
    events: int
    accepted: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # by reason
    rejected: list[dict[str, Any]] = field(default_factory=list)  # {index, error}, index among theirs
    took_ms: int = 0


def _json(body: Any, status: int = 200) -> Response:
    try:
        written = orjson.dumps(body)
    except orjson.JSONEncodeError:  # half a character or a very long number, in a body that is given back
        written = json.dumps(body).encode()
    return Response(written, status, media_type=JSON)


def picture() -> Response:
    """What a page gets that sends an event by the address of a picture."""
    return Response(PIXEL, media_type="image/gif", headers={"Cache-Control": "no-store"})


def _nothing(taken: Taken) -> Response:
    return Response(status_code=204)


def _ours(taken: Taken) -> Response:
    """Systems whose own address is an index or a page: what POST /v1/events would say."""
    told = {"accepted": taken.accepted, "dropped": taken.dropped, "rejected": taken.rejected}
    return _json(told, 202 if taken.accepted or not taken.rejected else 422)


def _metarank(taken: Taken) -> Response:
    told = {"accepted": taken.accepted, "status": "ok", "tookMillis": taken.took_ms, "updated": 0}
    return _json(told)


def _algolia(taken: Taken) -> Response:
    if taken.rejected and not taken.accepted:
        return _json({"status": 422, "message": taken.rejected[0]["error"]}, 422)
    return _json({"status": 200, "message": "OK"})


def _google(taken: Taken) -> Response:
    if taken.rejected:
        return _google_error(400, taken.rejected[0]["error"])
    return _json(taken.body)


def _google_error(status: int, message: str) -> Response:
    return _json({"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT"}}, status)


ANSWERS: dict[str, Callable[[Taken], Response]] = {
    "ga4": _nothing,
    "gtm": _nothing,
    "segment": lambda taken: _json({"success": True}),
    "rudderstack": lambda taken: Response("OK", media_type="text/plain"),
    "snowplow": lambda taken: Response("ok", media_type="text/plain"),
    "shopify": _ours,
    "metarank": _metarank,
    "gorse": lambda taken: _json({"RowAffected": taken.accepted}),
    "algolia": _algolia,
    "google": _google,
    "ubi": _ours,
}
REFUSALS: dict[str, Callable[[RequestError], Response]] = {
    "ga4": lambda error: Response(status_code=204),  # Google's own says nothing of a bad body
    "gtm": lambda error: Response(status_code=204),
    "algolia": lambda error: _json({"status": error.status, "message": str(error)}, error.status),
    "google": lambda error: _google_error(error.status, str(error)),
}
"""Of a body that cannot be read at all; by default the errors of docs/api.md."""
