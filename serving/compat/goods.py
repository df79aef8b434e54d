"""Items and users of Gorse and Metarank.

A change of an item goes through the door of POST /v1/items, which the catalogue key opens: as a bearer token,
or in the header of Gorse's clients (X-API-Key). Users have nothing to be stored: a shopper is known by deeds.
"""

import time
from typing import Any

import orjson
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from serving import prometheus
from serving.compat.receipts import JSON
from serving.errors import RequestError
from serving.http.api import Desk, Handler, read_body
from serving.http.callers import shown_elsewhere
from serving.http.listing import ItemDoor
from serving.http.requests import parse_json
from serving.payloads import gorse, metarank
from serving.payloads.payload import fields, listed


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
    return _affected(await changed(http, desk, found))


async def gorse_item(http: HttpRequest, desk: Desk) -> Response:
    name = http.path_params["item_id"]
    if http.method == "DELETE":
        return _affected(await changed(http, desk, [{"item_id": name, "deleted": True}]))
    row = fields(parse_json(await read_body(http, desk.params.max_body_bytes)))
    item = gorse.item_of({**row, "ItemId": name})
    return _affected(await changed(http, desk, [item] if item else []))


async def gorse_users(http: HttpRequest, desk: Desk) -> Response:
    await read_body(http, desk.params.max_body_bytes)
    return _affected(0)


async def metarank_items(http: HttpRequest, desk: Desk, body: Any) -> int:
    """How many `item` events of a feedback were accepted. Beside other events those without the key are
    dropped and counted; alone they raise what the door says.
    """
    told = listed(body)
    found = [item for event in told if (item := metarank.item_of(event))]
    try:
        return await changed(http, desk, found)
    except RequestError as error:
        if error.field != "authorization" or all(
            fields(one).get("event") in ("item", "user") for one in told
        ):
            raise
        prometheus.COMPAT.labels("metarank", "no key").inc(len(found))
        return 0


async def changed(http: HttpRequest, desk: Desk, items: list[dict[str, Any]]) -> int:
    """How many changes were accepted. Raises as POST /v1/items does."""
    if not items:
        return 0
    desk.keys.admit_items(shown_elsewhere(http))
    if len(items) > (most := desk.params.max_changes):
        raise RequestError("items", f"{len(items)} items", f"at most {most} at once", next_step="send less")
    clock = desk.ingress.clock(await desk.storefront.now(), time.time_ns() // 1000)
    return (await ItemDoor(desk.ingress).accept(items, clock)).accepted


def _affected(rows: int) -> Response:
    return Response(orjson.dumps({"RowAffected": rows}), media_type=JSON)
