"""The routes of the storefront plane: bytes in, a checked request on, bytes out.

POST /v1/recommend   GET /v1/recommend?surface=...   POST /v1/page   POST /v1/rank   POST /v1/events[?wait=1]
POST /v1/items[?wait=1]   POST /v1/explain   GET /metrics   GET /docs.json   the files of assets.ASSETS, / too
"""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import orjson
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from feature_repo.errors import UnavailableError
from serving import prometheus
from serving.access.credentials import PARAMETER, Keys
from serving.access.tolls import TollGate
from serving.cascade.board import as_told
from serving.cascade.queueing import ARRIVED
from serving.errors import RequestError
from serving.flags.evaluations import Evaluations
from serving.http.assets import ASSETS, HEADERS, cached, etag
from serving.http.callers import address, admitted, caller_of, require_manners, shown, source_of
from serving.http.connections import ARRIVAL, READ_ON, Arrival
from serving.http.ingress import Ingress, Receipt, parse_events
from serving.http.inquiry import Inquiries, parse_explain
from serving.http.listing import ItemDoor, parse_changes
from serving.http.openapi import document_bytes
from serving.http.origins import Cors, Origins
from serving.http.requests import parse_page, parse_query, parse_rank, parse_recommend, query_pairs
from serving.live.complaints import Complaints
from serving.live.storefront import Storefront
from serving.params import Serving
from serving.shortcuts import Endpoint, Shortcuts
from serving.types import Answer

JSON = "application/json"
METHODS = {
    "/v1/recommend": "GET, POST",
    "/v1/page": "POST",
    "/v1/rank": "POST",
    "/v1/events": "POST",
    "/v1/items": "POST",
    "/v1/explain": "POST",
    "/metrics": "GET",
    "/docs.json": "GET",
    **dict.fromkeys(ASSETS, "GET"),
}
NOT_KEPT = {"Cache-Control": "private, no-store", "X-Accel-Expires": "0"}
HEALTH = {"/livez": "GET", "/readyz": "GET"}  # BentoML's, in front of this app
REJECTED = "Endcap-Rejected"  # how many events of a POST were refused; absent where none was

complain = Complaints(logging.getLogger(__name__))


@dataclass(frozen=True)
class Desk:
    """Who serves the routes; in app.state.desk once the service has started."""

    storefront: Storefront
    ingress: Ingress
    params: Serving
    keys: Keys
    gate: TollGate
    inquiries: Inquiries | None = None
    evaluations: Evaluations | None = None


Handler = Callable[[HttpRequest, Desk], Awaitable[Response]]


def build_app(cors: Cors, more: Sequence[Route] = ()) -> Starlette:
    """The ASGI app with `more` routes; put a Desk in its `state.desk` before the first request."""
    everything = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    posted: list[tuple[str, Handler]] = [("recommend", recommend), ("page", page), ("rank", rank)]
    posted += [("events", events), ("items", items), ("explain", explain)]
    own = {("POST", f"/v1/{name}"): guarded(name, handler) for name, handler in posted}
    own["GET", "/v1/recommend"] = guarded("recommend", recommend_by_query)
    return Starlette(
        routes=[
            *(Route(path, endpoint, methods=[method]) for (method, path), endpoint in own.items()),
            Route("/metrics", exposition, methods=["GET"]),
            Route("/docs.json", guarded("docs", docs), methods=["GET"]),
            *(Route(path, asset.__call__, methods=["GET"]) for path, asset in ASSETS.items()),
            *more,
            # Also what BentoML has behind this app: its own pages, which ask hosts of others for scripts.
            Route("/{path:path}", guarded("unknown", elsewhere), methods=everything),
        ],
        middleware=[
            Middleware(Origins, cors=cors, methods=METHODS),
            Middleware(Shortcuts, endpoints=own),
        ],
    )


async def recommend(http: HttpRequest, desk: Desk) -> Response:
    body = await read_body(http, desk.params.max_body_bytes)
    request = parse_recommend(body, desk.params.max_items)
    toll = admitted(http, desk.keys, desk.gate, request)
    return _list(desk, await desk.storefront.recommend(request, toll))


async def recommend_by_query(http: HttpRequest, desk: Desk) -> Response:
    pairs = [pair for pair in query_pairs(http.scope["query_string"]) if pair[0] != PARAMETER]
    request = parse_query(pairs, desk.params.max_items)
    toll = admitted(http, desk.keys, desk.gate, request)
    if http.method == "HEAD":  # a list that nobody sees is none that was shown
        toll.settle_here()
        return Response(headers=NOT_KEPT, media_type=JSON)
    shared = not (request.user_id or request.session_id)
    return _list(desk, await desk.storefront.recommend(request, toll), shared)


async def page(http: HttpRequest, desk: Desk) -> Response:
    body = await read_body(http, desk.params.max_body_bytes)
    requests = parse_page(body, desk.params.max_items, desk.params.max_surfaces)
    toll = admitted(http, desk.keys, desk.gate, *requests)
    lists = map(answer_bytes, await desk.storefront.page(requests, toll))
    return Response(b'{"surfaces":[' + b",".join(lists) + b"]}", headers=NOT_KEPT, media_type=JSON)


async def rank(http: HttpRequest, desk: Desk) -> Response:
    body = await read_body(http, desk.params.max_body_bytes)
    request = parse_rank(body, desk.params.max_items)
    toll = admitted(http, desk.keys, desk.gate, request)
    return _list(desk, await desk.storefront.rank(request, toll))


async def events(http: HttpRequest, desk: Desk) -> Response:
    wait = _waits(http)
    body = await read_body(http, desk.params.max_body_bytes)
    caller_of(http, desk.keys)
    raw, sent_at, proof = parse_events(body, desk.params.max_events)
    now = await desk.storefront.now()
    clock = desk.ingress.clock(now, time.time_ns() // 1000, sent_at)
    receipt = await desk.ingress.accept(raw, clock, source_of(http, desk.keys, desk.gate, raw, proof))
    return _told(desk, receipt, wait)


async def items(http: HttpRequest, desk: Desk) -> Response:
    wait = _waits(http)
    body = await read_body(http, desk.params.max_body_bytes)
    desk.keys.admit_items(shown(http))
    raw = parse_changes(body, desk.params.max_changes)
    clock = desk.ingress.clock(await desk.storefront.now(), time.time_ns() // 1000)
    return _told(desk, await ItemDoor(desk.ingress).accept(raw, clock), wait)


async def explain(http: HttpRequest, desk: Desk) -> Response:
    desk.keys.require_secret(caller_of(http, desk.keys), "path", "/v1/explain")
    body = await read_body(http, desk.params.max_body_bytes)
    request, asked = parse_explain(body, desk.params.max_items)
    if desk.inquiries is None:
        raise UnavailableError("nothing is explained here")
    return Response(await desk.inquiries.answer(request, asked), headers=NOT_KEPT, media_type=JSON)


def _waits(http: HttpRequest) -> bool:
    asked = [pair for pair in query_pairs(http.scope["query_string"]) if pair[0] != PARAMETER]
    for name, value in asked:
        if name != "wait":
            raise RequestError(name, value, "the parameter wait", next_step="drop it")
    wait = dict(asked).get("wait", "0")
    if wait not in ("0", "1"):
        raise RequestError("wait", wait, "0 or 1")
    return wait == "1"


def _told(desk: Desk, receipt: Receipt, wait: bool) -> Response:
    refused = len(receipt.rejected)
    headers = {REJECTED: str(refused)} if refused else None
    if not receipt.accepted:  # nothing was, so that a client that reads the status alone knows
        return Response(receipt.body(True if wait else None), 422, headers, media_type=JSON)
    if not wait:
        return Response(receipt.body(), 202, headers, media_type=JSON)
    return StreamingResponse(_when_applied(desk, receipt), 202, headers, media_type=JSON)


async def _when_applied(desk: Desk, receipt: Receipt) -> AsyncIterator[bytes]:
    """The body, once the events are in the features.

    The status goes out before the wait: Bento cuts a response that has not begun within traffic_timeout_s,
    and the events are accepted already.
    """
    yield receipt.body(await desk.ingress.waiters.applied(receipt.last, desk.params.wait_limit_s))


async def elsewhere(http: HttpRequest, desk: Desk) -> Response:
    if known := (METHODS | HEALTH).get(http.url.path):
        raise RequestError("method", http.method, known, status=405, next_step=f"use {known}")
    raise RequestError("path", http.url.path, ", ".join(METHODS), status=404, next_step="see docs/api.md")


async def docs(http: HttpRequest, desk: Desk) -> Response:
    body = document_bytes(desk.params)
    return cached(http, body, {"ETag": etag(body), "Content-Type": JSON, **HEADERS})


async def exposition(_: HttpRequest) -> Response:
    return Response(prometheus.exposition(), media_type=CONTENT_TYPE_LATEST)


async def read_body(http: HttpRequest, limit: int) -> bytes:
    """The whole body; RequestError 413 where it exceeds `limit` bytes.

    A client reads no answer while it sends: what is too large is received and dropped up to READ_ON times the
    limit, before the connection ends on it. One that waits for leave to send (100-continue) gets it at once.
    """
    announced = http.headers.get("content-length", "")
    told = int(announced) if announced.isascii() and announced.isdigit() and len(announced) <= 12 else 0
    size, chunks = max(told, 10**12 * (len(announced) > 12)), list[bytes]()
    patient = http.headers.get("expect", "").lower() == "100-continue"
    if size <= limit or (size <= READ_ON * limit and not patient):
        size = 0
        async for chunk in http.stream():
            size += len(chunk)
            if size > READ_ON * limit:
                break
            if size <= limit:
                chunks.append(chunk)
    if size > limit:
        allowed, step = f"a body of at most {limit} bytes", "send less at once"
        raise RequestError("body", f"{size} bytes or more", allowed, status=413, next_step=step)
    return b"".join(chunks)


def answer_bytes(answer: Answer) -> bytes:
    """The JSON body: the answer's fields, `warnings` and `debug` only where there is something to say."""
    body = {name: getattr(answer, name) for name in Answer.__slots__}
    told, encoded = body.pop("products"), body.pop("json")
    if encoded and not told:
        body["items"] = orjson.Fragment(encoded)
    else:
        slots = [as_told(slot) for slot in answer.items]
        for slot, more in zip(slots, told, strict=True) if told else ():
            slot |= more
        body["items"] = slots
    if not answer.warnings:
        del body["warnings"]
    if not answer.flags:
        del body["flags"]
    if answer.debug is None:
        del body["debug"]
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def cache_headers(answer: Answer, shared: bool, edge_ttl_s: int) -> dict[str, str]:
    """Browsers keep nothing. The edge (nginx) may keep a healthy answer that is `shared`, under its URL.

    It is a GET that names nobody: whoever asks is given the same list. A shopper's own is kept nowhere.
    """
    keep = edge_ttl_s if shared and answer.degraded is None and not answer.debug else 0
    return {**NOT_KEPT, "X-Accel-Expires": str(keep)}


def _list(desk: Desk, answer: Answer, shared: bool = False) -> Response:
    headers = cache_headers(answer, shared, desk.params.edge_ttl_s)
    return Response(answer_bytes(answer), headers=headers, media_type=JSON)


def guarded(route: str, handler: Handler) -> Endpoint:
    """The one place where errors become answers; a 500 is a defect of ours, never a client's doing."""

    async def endpoint(http: HttpRequest) -> Response:
        ARRIVED.set(http.scope.get(ARRIVAL, Arrival()).at)
        desk: Desk | None = getattr(http.app.state, "desk", None)
        try:
            if desk is None:
                raise UnavailableError("the service is starting")
            require_manners(http, desk.keys, desk.gate)
            return await handler(http, desk)
        except RequestError as error:
            if desk is not None and error.status != 429:
                desk.gate.refused(address(http))
            told = {401: ("WWW-Authenticate", "Bearer"), 405: ("Allow", error.allowed)}
            told[429] = "Retry-After", str(error.retry_after_s)
            headers = dict([told[error.status]]) if error.status in told else None
            found = Response(error.body(), error.status, headers, media_type=JSON)
        except UnavailableError as error:
            retry = {"Retry-After": str(error.retry_after_s)}
            found = Response(error.body(), 503, retry, media_type=JSON)
        except ClientDisconnect:
            found = Response(status_code=499)  # nobody reads it
        except Exception as error:
            complain(route, error)
            body = orjson.dumps({"error": {"reason": "a defect of the service", "next": "see its log"}})
            found = Response(body, 500, media_type=JSON)
        prometheus.REFUSED.labels(route, str(found.status_code)).inc()
        return found

    return endpoint
