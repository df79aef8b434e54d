"""OpenSearch's User Behavior Insights: what was searched for and found, and what was then done.

{"action_name": "click", "client_id": "c", "query_id": "q", "timestamp": "2026-01-31T12:00:00Z",
 "event_attributes": {"object": {"object_id": "SKU"}, "position": {"ordinal": 3}}}
{"query_id": "q", "user_query": "shirt", "query_response_hit_ids": ["SKU"], "client_id": "c", "timestamp": 17}
"""

from collections.abc import Mapping
from typing import Any

from serving.payloads import identity
from serving.payloads.payload import (
    MAX_LINES,
    NO_PRODUCT,
    TOO_MANY,
    UNKNOWN,
    Dropped,
    System,
    count,
    fields,
    first,
    label,
    listed,
    moment,
    ours,
    price,
    text,
)
from serving.payloads.terms import Terms


def documents(body: Any) -> list[Any]:
    return listed(body)


def translate(document: Any, terms: Terms) -> list[dict[str, Any]]:
    """A query is a search and the list that it showed; an action on an object is by the shop's `words`.

    A view that names its query is also a click in that list: clicks alone are no contact here.
    """
    told = fields(document)
    attributes = fields(told.get("event_attributes"))
    ids = identity.visitor(
        told.get("client_id"),
        told.get("user_id"),
        first(told.get("session_id"), attributes.get("session_id")),
    ).ids()
    when, query = first(told.get("timestamp")), label(told.get("query_id"))
    base = {**ids, "event_ts": moment(when), "request_id": ours(query)}
    if "user_query" in told or "query_response_hit_ids" in told:
        return _query(told, base, query)
    word = (text(told.get("action_name")) or "").lower()
    kind = terms.words.get(word)
    if kind is None:
        raise Dropped(UNKNOWN)
    thing = fields(attributes.get("object"))
    item = first(thing.get("object_id"), thing.get("internal_id"))
    if kind == "search":
        own = identity.of_content("ubi", ids, when, word, told.get("message"))
        return [{**base, "type": kind, "query": label(told.get("message")), "event_id": own}]
    if item is None:
        raise Dropped(NO_PRODUCT)
    kinds = ("click", kind) if kind == "product_viewed" and query else (kind,)
    at = count("position", fields(attributes.get("position")).get("ordinal"))
    whole = identity.of_content("ubi", ids, when, word, query, item, at)
    detail = fields(thing.get("object_detail"))
    return [
        {
            **base,
            "type": one,
            "item_id": item,
            "position": at if one in ("impression", "click") else None,
            "price": price(detail.get("price")),
            "event_id": identity.of_line(whole, place, len(kinds)),
        }
        for place, one in enumerate(kinds, 1)
    ]


def _query(told: Mapping[str, Any], base: Mapping[str, Any], query: str | None) -> list[dict[str, Any]]:
    words, hits = label(told.get("user_query")), told.get("query_response_hit_ids")
    found: list[dict[str, Any]] = []
    if words:
        found.append({"type": "search", "query": words})
    hits = hits if isinstance(hits, list) else []
    if len(hits) > MAX_LINES:
        raise Dropped(TOO_MANY)
    for place, hit in enumerate(hits, 1):
        found.append({"type": "impression", "item_id": first(hit), "position": place})
    if not found:
        raise Dropped(NO_PRODUCT)
    own = query or identity.of_content("ubi", base, words, hits)
    return [{**base, **one, "event_id": identity.of_line(own, n, 0)} for n, one in enumerate(found)]


DOCUMENTS = System(documents, translate)
