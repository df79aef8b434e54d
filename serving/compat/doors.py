"""The routes under /compat: another system's body in, canonical events on, that system's answer out.

Every request of every door passes `_door`, the one place where a door may ask who is there.
"""

import asyncio
import time
import zlib
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from serving import prometheus
from serving.compat import carousels, goods, gtag, remote_flags
from serving.compat.carousels import Unseen
from serving.compat.receipts import ANSWERS, REFUSALS, Taken, picture
from serving.errors import RequestError
from serving.http.api import Desk, Handler, guarded, read_body
from serving.http.callers import address, shown_elsewhere, source_of
from serving.http.requests import parse_instant, parse_json, query_pairs
from serving.payloads import gorse, insights, measurement, metarank, pixels, retail, snowplow, tracks, ubi
from serving.payloads.payload import Dropped, System, moment
from serving.payloads.terms import Terms

YIELD_EVERY, YIELD_AFTER = 8, 250  # events of theirs, and of ours, translated before others have their turn
EVENTS: tuple[tuple[str, str, tuple[str, ...], System], ...] = (
    ("ga4", "/mp/collect", ("POST",), measurement.MEASUREMENT),
    ("ga4", "/g/collect", ("GET", "POST"), gtag.HITS),
    ("ga4", "/export", ("POST",), measurement.EXPORT),
    ("gtm", "", ("POST",), measurement.DATA_LAYER),
    *(
        (system, f"/v1/{call}", ("POST",), tracks.TRACKS)
        for system in ("segment", "rudderstack")
        for call in ("batch", "import", "track", "page", "screen", "identify", "group", "alias")
    ),
    ("snowplow", "/i", ("GET",), snowplow.TRACKER),
    ("snowplow", "/{vendor}/{version}", ("POST",), snowplow.TRACKER),
    ("shopify", "", ("POST",), pixels.PIXELS),
    ("algolia", "/1/events", ("POST",), insights.INSIGHTS),
    ("google", "/v2/{parent:path}/userEvents:write", ("POST",), retail.USER_EVENTS),
    ("google", "/v2/{parent:path}/userEvents:collect", ("GET",), retail.USER_EVENTS),
    ("ubi", "", ("POST",), ubi.DOCUMENTS),
    ("metarank", "/feedback", ("POST",), metarank.FEEDBACK),
    ("gorse", "/api/feedback", ("POST", "PUT"), gorse.FEEDBACK),
)
"""System, address below its door, methods, how its bodies are read."""


IN_THEIR_WORDS = REFUSALS | {remote_flags.OFREP: remote_flags.refused}


def routes(terms: Terms) -> list[Route]:
    """The routes of the doors that are open."""
    found = [
        _door(system, path, _events(system, read, terms), *methods)
        for system, path, methods, read in EVENTS
        if system in terms.enabled
    ]
    found += [
        _door(system, path, handler, *methods)
        for system, path, methods, handler in (*carousels.handlers(terms), *goods.handlers())
        if system in terms.enabled
    ]
    found += [_door(remote_flags.OFREP, path, handler, "POST") for path, handler in remote_flags.handlers()]
    return [*found, Route("/compat/{path:path}", guarded("compat", _elsewhere(terms)), methods=_ANY)]


_ANY = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def _door(system: str, path: str, handler: Handler, *methods: str) -> Route:
    async def admitted(http: HttpRequest, desk: Desk) -> Response:
        try:
            http.state.caller = desk.keys.caller(shown_elsewhere(http), foreign=True)
            return await handler(http, desk)
        except Unseen:
            return Response(headers={"Cache-Control": "private, no-store"})
        except RequestError as error:
            if system not in IN_THEIR_WORDS or error.status == 429:
                raise
            desk.gate.refused(address(http))
            prometheus.COMPAT.labels(system, "unreadable").inc()
            return IN_THEIR_WORDS[system](error)

    return Route(f"/compat/{system}{path}", guarded(f"compat/{system}", admitted), methods=list(methods))


def _events(system: str, read: System, terms: Terms) -> Handler:
    web = read is gtag.HITS

    async def handler(http: HttpRequest, desk: Desk) -> Response:
        if http.method == "HEAD":  # nobody tells events by it
            source_of(http, desk.keys, desk.gate, [None]).toll.settle_here()
            raise Unseen
        if web:
            body = gtag.hits(http.scope["query_string"], await unpacked(http, gtag.MAX_BYTES))
        elif http.method == "GET":
            body = _from_query(http)
        else:
            body = parse_json(await unpacked(http, desk.params.max_body_bytes), halves=True)
        taken = await take(http, body, system, read, terms, desk)
        if system == "metarank":
            taken.accepted += await goods.metarank_items(http, desk, body)
        return picture() if http.method == "GET" and not web else ANSWERS[system](taken)

    return handler


def _from_query(http: HttpRequest) -> Any:
    """What a page sends by a picture's address: the fields of the event, or all of it as `userEvent`."""
    pairs = dict(query_pairs(http.scope["query_string"]))
    whole = pairs.get("userEvent")
    return pairs if whole is None else parse_json(whole.encode("utf-8", "surrogatepass"), halves=True)


async def take(http: HttpRequest, body: Any, system: str, read: System, terms: Terms, desk: Desk) -> Taken:
    """Translate a body and post its events. Raises RequestError 413 for more than `terms.max_events` of ours,
    UnavailableError where they cannot be kept: sent again, each counts once.
    """
    began, theirs = time.perf_counter(), read.events(body)
    taken = Taken(body, len(theirs))
    events: list[dict[str, Any]] = []
    sources: list[int] = []  # index of the event of theirs that each comes from
    due = YIELD_AFTER
    for index, one in enumerate(theirs):
        if index % YIELD_EVERY == 0 or len(events) >= due:
            await asyncio.sleep(0)
            due = len(events) + YIELD_AFTER
        try:
            found = read.translate(one, terms)
        except Dropped as why:
            taken.dropped[why.args[0]] += 1
            continue
        events += found
        sources += [index] * len(found)
        if len(events) > terms.max_events:
            allowed = f"what makes at most {terms.max_events} events, one for each product"
            raise RequestError("body", "more", allowed, status=413, next_step="send less at once")
    if theirs:
        now = await desk.storefront.now()
        clock = desk.ingress.clock(now, time.time_ns() // 1000, _sent_at(read, body))
        source = source_of(http, desk.keys, desk.gate, events, dropped=taken.dropped.total())
        for event in events:  # no payload of theirs has a proof: the visit's deed, and no shopper's
            event["user_id"] = event["user_id"] if source.owns(event["user_id"]) else None
            event["session_id"] = desk.keys.visit(event["session_id"])
        receipt = await desk.ingress.accept(events, clock, source)
        for fault in receipt.rejected:
            taken.rejected.append({"index": sources[fault["index"]], "error": fault["error"]})
        refused = {fault["index"] for fault in taken.rejected}
        taken.accepted = len(set(sources) - refused)
    taken.took_ms = round((time.perf_counter() - began) * 1000)
    _count(system, taken)
    return taken


def _sent_at(read: System, body: Any) -> int | None:
    try:
        return parse_instant("sent_at", moment(read.sent_at(body)))
    except RequestError:  # a clock that cannot be read corrects nothing
        return None


def _count(system: str, taken: Taken) -> None:
    rejected = len({fault["index"] for fault in taken.rejected})
    counts = {"accepted": taken.accepted, "rejected": rejected, **taken.dropped}
    for outcome, number in counts.items():
        if number:
            prometheus.COMPAT.labels(system, outcome).inc(number)


async def unpacked(http: HttpRequest, limit: int) -> bytes:
    """The body, unpacked where it is gzip; RequestError 413 where either form exceeds `limit` bytes."""
    body = await read_body(http, limit)
    if http.headers.get("content-encoding", "").strip().lower() != "gzip":
        return body
    reader = zlib.decompressobj(wbits=31)
    try:
        plain = reader.decompress(body, limit + 1)
    except zlib.error:
        raise RequestError("body", body[:20], "gzip, as its header says", status=400) from None
    if len(plain) > limit:
        allowed, step = f"a body of at most {limit} bytes, unpacked", "send less at once"
        raise RequestError("body", "more", allowed, status=413, next_step=step)
    return plain


def _elsewhere(terms: Terms) -> Handler:
    known = ", ".join(f"/compat/{system}" for system in terms.enabled)

    async def handler(http: HttpRequest, desk: Desk) -> Response:
        raise RequestError("path", http.url.path, f"the addresses below {known}", status=404, next_step=_SEE)

    return handler


_SEE = "see docs/compat.md"
