"""Lists in the forms of Gorse and Metarank, made by the storefront that answers /v1/recommend and /v1/rank.

The request id of a list, by which clicks find it, is in the header X-Request-Id: their answers have no place.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from feature_repo.events import SURFACES
from serving.access.credentials import Guessable
from serving.compat.receipts import JSON
from serving.errors import RequestError
from serving.http.api import Desk, Handler, read_body
from serving.http.callers import admitted
from serving.http.requests import MAX_LIMIT, build, parse_json, parse_object, query_pairs
from serving.payloads.payload import fields, first, listed
from serving.payloads.terms import Terms
from serving.types import Answer, Request, Slot

DEFAULT_N = 10  # of Gorse and Metarank
NO_CATEGORY = "no category: a list of one category alone is not made here; ask POST /v1/rank with its items"


class Unseen(Exception):
    """Asked for by HEAD: judged and charged, but a list that nobody sees was not shown."""


def handlers(terms: Terms) -> tuple[tuple[str, str, tuple[str, ...], Handler], ...]:
    """System, address below its door, methods, handler."""
    lists, get, post = terms.lists, ("GET",), ("POST",)
    for_user, for_anybody = _gorse_user(lists.for_user), _gorse_user(lists.for_user)
    session, beside = _gorse_session(lists.for_visit), _gorse_beside(lists.beside_items)
    return (
        ("gorse", "/api/recommend/{user_id}", get, for_user),
        ("gorse", "/api/recommend/{user_id}/{category:path}", get, for_user),
        ("gorse", "/api/session/recommend", post, session),
        ("gorse", "/api/session/recommend/{category:path}", post, session),
        ("gorse", "/api/item/{item_id}/neighbors", get, beside),
        ("gorse", "/api/item-to-item/{name}/{item_id}", get, beside),
        *(
            ("gorse", f"/api/{name}{more}", get, for_anybody)
            for name in ("popular", "latest")
            for more in ("", "/{category:path}")
        ),
        ("gorse", "/api/non-personalized/{name}", get, for_anybody),
        ("metarank", "/recommend/{model}", post, _metarank_recommend(terms)),
        ("metarank", "/rank/{model}", post, _metarank_rank(terms)),
    )


def _gorse_user(surface: str) -> Handler:
    async def handler(http: HttpRequest, desk: Desk) -> Response:
        n, offset = _page(http)
        user = http.path_params.get("user_id")
        visit = None if user is None else Guessable(user)
        asked = {"surface": surface, "user_id": user, "session_id": visit, "limit": n + offset}
        answer = await _list(http, desk, asked)
        slots = answer.items[offset:]
        scored = user is None or http.headers.get("x-api-version") == "2"
        return _told(_scores(slots) if scored else [slot.item_id for slot in slots], answer)

    return handler


def _gorse_session(surface: str) -> Handler:
    async def handler(http: HttpRequest, desk: Desk) -> Response:
        n, offset = _page(http)
        rows = [fields(one) for one in listed(parse_json(await read_body(http, desk.params.max_body_bytes)))]
        items = list(dict.fromkeys(found for row in rows if (found := first(row.get("ItemId")))))
        asked = {"surface": surface, "items": items, "limit": n + offset}
        answer = await _list(http, desk, asked)
        return _told(_scores(answer.items[offset:]), answer)

    return handler


def _gorse_beside(surface: str) -> Handler:
    async def handler(http: HttpRequest, desk: Desk) -> Response:
        n, offset = _page(http)
        user = dict(query_pairs(http.scope["query_string"])).get("user-id")
        asked = {"surface": surface, "items": [http.path_params["item_id"]], "limit": n + offset}
        answer = await _list(http, desk, {**asked, "user_id": user})
        return _told(_scores(answer.items[offset:]), answer)

    return handler


def _metarank_recommend(terms: Terms) -> Handler:
    async def handler(http: HttpRequest, desk: Desk) -> Response:
        body = parse_object(await read_body(http, desk.params.max_body_bytes))
        items = body.get("items")
        usual = terms.lists.beside_items if items else terms.lists.for_user
        asked = {"surface": _surface(http, usual), "items": items, "limit": body.get("count", DEFAULT_N)}
        answer = await _list(http, desk, {**asked, **_ids(body)})
        return _told(_metarank(answer, answer.items), answer)

    return handler


def _metarank_rank(terms: Terms) -> Handler:
    """Every item comes back, as Metarank has it: what the catalogue does not know stands last, as it came."""

    async def handler(http: HttpRequest, desk: Desk) -> Response:
        body = parse_object(await read_body(http, desk.params.max_body_bytes))
        given = body.get("items")
        items: list[Any] = [fields(one).get("id") for one in given] if isinstance(given, list) else []
        if not items:
            raise RequestError("items", given, 'a list of objects as {"id": "item1"}')
        asked = {"surface": _surface(http, terms.lists.ranked), "items": items}
        request = _request(desk, {**asked, **_ids(body)})
        answer = await desk.storefront.rank(request, admitted(http, desk.keys, desk.gate, request))
        known = {slot.item_id for slot in answer.items}
        least = min((slot.score for slot in answer.items), default=0.0)
        others = [item for item in dict.fromkeys(items) if item not in known]
        last = tuple(Slot(item, len(known) + n, least, "unknown") for n, item in enumerate(others))
        return _told(_metarank(answer, answer.items + last), answer)

    return handler


async def _list(http: HttpRequest, desk: Desk, asked: Mapping[str, Any]) -> Answer:
    request = _request(desk, asked)
    toll = admitted(http, desk.keys, desk.gate, request)
    if http.method == "HEAD":
        toll.settle_here()
        raise Unseen
    return await desk.storefront.recommend(request, toll)


def _request(desk: Desk, asked: Mapping[str, Any]) -> Request:
    visit = desk.keys.visit(asked.get("session_id"))
    return build({**asked, "session_id": visit}, desk.params.max_items)


def _surface(http: HttpRequest, usual: str) -> str:
    """The model's name where it is a surface of ours."""
    model = http.path_params["model"]
    return model if model in SURFACES else usual


def _ids(body: Mapping[str, Any]) -> dict[str, Any]:
    """As serving/payloads/metarank.py calls the shopper and the visit of its events."""
    user, visit = first(body.get("user")), first(body.get("session"))
    return {"user_id": user or visit, "session_id": visit or (user and Guessable(user))}


def _page(http: HttpRequest) -> tuple[int, int]:
    """Gorse's `n` and `offset`; a list ends after MAX_LIMIT, which is no error."""
    pairs = dict(query_pairs(http.scope["query_string"]))
    if category := http.path_params.get("category") or pairs.get("category"):
        raise RequestError("category", category, NO_CATEGORY, status=501)
    found = []
    for name, usual in (("n", DEFAULT_N), ("offset", 0)):
        text = pairs.get(name) or str(usual)
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise RequestError(name, text, "a whole number from 0", status=400)
        found.append(int(text))
    offset = min(found[1], MAX_LIMIT - 1)
    return min(max(found[0], 1), MAX_LIMIT - offset), offset


def _scores(slots: tuple[Slot, ...]) -> list[dict[str, Any]]:
    return [{"Id": slot.item_id, "Score": slot.score} for slot in slots]


def _metarank(answer: Answer, slots: tuple[Slot, ...]) -> dict[str, Any]:
    took = round(answer.took_ms)
    return {"took": took, "items": [{"item": slot.item_id, "score": slot.score} for slot in slots]}


def _told(body: Any, answer: Answer) -> Response:
    headers = {"Cache-Control": "private, no-store", "X-Request-Id": answer.request_id}
    packed = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(packed, headers=headers, media_type=JSON)
