"""Items and users of Gorse and Metarank.

A change of an item goes to the shop's catalogue, where the service has one that can be changed while it runs
(`app.state.catalogue`); where it has none the answer is 501 with what to do instead. Users have nothing to be
stored: a shopper is known by what he does.
"""

from typing import Any, Protocol

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from serving.compat.receipts import JSON
from serving.errors import RequestError
from serving.http.api import Desk, Handler, read_body
from serving.http.requests import parse_json
from serving.payloads import gorse, metarank
from serving.payloads.payload import fields, listed

NEXT = "bring items in with the shop's export (`endcap migrate`, `endcap ingest`) or by POST /v1/items"


class Catalogue(Protocol):
    """Where items may be changed while the shop is open."""

    async def change(self, items: list[dict[str, Any]]) -> int:
        """Take over items as POST /v1/items has them (`item_id`, fields of ITEM_SCHEMA, or `deleted`): how
        many were accepted."""


def handlers() -> tuple[tuple[str, str, tuple[str, ...], Handler], ...]:
    """System, address below its door, methods, handler."""
    return (
        ("gorse", "/api/item", ("POST",), gorse_items),
        ("gorse", "/api/items", ("POST",), gorse_items),
        ("gorse", "/api/item/{item_id}", ("PATCH", "DELETE"), gorse_item),
        ("gorse", "/api/user", ("POST",), gorse_users),
        ("gorse", "/api/users", ("POST",), gorse_users),
        ("gorse", "/api/user/{user_id}", ("PATCH",), gorse_users),
    )


async def gorse_items(http: HttpRequest, desk: Desk) -> Response:
    rows = listed(parse_json(await read_body(http, desk.params.max_body_bytes)))
    found = [item for row in rows if (item := gorse.item_of(row))]
    return _affected(await changed(http, found))


async def gorse_item(http: HttpRequest, desk: Desk) -> Response:
    name = http.path_params["item_id"]
    if http.method == "DELETE":
        return _affected(await changed(http, [{"item_id": name, "deleted": True}]))
    row = fields(parse_json(await read_body(http, desk.params.max_body_bytes)))
    item = gorse.item_of({**row, "ItemId": name})
    return _affected(await changed(http, [item] if item else []))


async def gorse_users(http: HttpRequest, desk: Desk) -> Response:
    await read_body(http, desk.params.max_body_bytes)
    return _affected(0)


async def metarank_items(http: HttpRequest, body: Any) -> int:
    """How many `item` events of a feedback were accepted; 501 where it holds nothing else and none can be."""
    told = listed(body)
    found = [item for event in told if (item := metarank.item_of(event))]
    alone = all(fields(event).get("event") in ("item", "user") for event in told)
    if not found or (catalogue_of(http) is None and not alone):
        return 0
    return await changed(http, found)


async def changed(http: HttpRequest, items: list[dict[str, Any]]) -> int:
    """Hand items to the catalogue; RequestError 501 where it cannot be changed."""
    catalogue = catalogue_of(http)
    if catalogue is None:
        allowed = "no change: this service's catalogue is that of its release"
        raise RequestError("items", f"{len(items)} items", allowed, status=501, next_step=NEXT)
    return await catalogue.change(items) if items else 0


def catalogue_of(http: HttpRequest) -> Catalogue | None:
    found: Catalogue | None = getattr(http.app.state, "catalogue", None)
    return found


def _affected(rows: int) -> Response:
    return Response(orjson.dumps({"RowAffected": rows}), media_type=JSON)
