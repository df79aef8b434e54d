"""Google's retail API (Vertex AI Search for commerce): user events as its `userEvents:write` takes them.

{"eventType": "detail-page-view", "visitorId": "v", "eventTime": "2026-01-31T12:00:00Z",
 "productDetails": [{"product": {"id": "1"}, "quantity": 1}], "userInfo": {"userId": "u"}}
"""

from typing import Any

from feature_repo.vocabulary.trackers import GOOGLE
from serving.payloads import identity
from serving.payloads.payload import (
    UNKNOWN,
    Dropped,
    System,
    count,
    fields,
    first,
    label,
    lines,
    list_of,
    listed,
    moment,
    price,
    text,
)
from serving.payloads.terms import Terms


def events(body: Any) -> list[Any]:
    """One event; `:import` gives several in its inputConfig."""
    inline = fields(fields(fields(body).get("inputConfig")).get("userEventInlineSource"))
    return listed(inline.get("userEvents")) if inline else [fields(body)]


def translate(event: Any, terms: Terms) -> list[dict[str, Any]]:
    """One event per product; a search is itself, and the list of products that it showed."""
    told = fields(event)
    name = text(told.get("eventType")) or ""
    kind = GOOGLE.get(name)
    if kind is None:
        raise Dropped(UNKNOWN)
    user = fields(told.get("userInfo")).get("userId")
    ids = identity.visitor(told.get("visitorId"), user, told.get("sessionId")).ids()
    when = first(told.get("eventTime"))
    base = {**ids, "event_ts": moment(when)}
    query = label(told.get("searchQuery")) if kind == "search" else None
    found: list[dict[str, Any]] = []
    if kind == "search" and query:
        own = identity.of_content("google", ids, when, name, query)
        found.append({**base, "type": "search", "query": query, "event_id": own})
    details = told.get("productDetails")
    products = lines(details) if listed(details) or not found else []
    whole = identity.of_content("google", ids, when, name, products)
    order = text(fields(told.get("purchaseTransaction")).get("id")) if kind == "purchase_completed" else None
    token = list_of(told.get("attributionToken"))["request_id"]
    pages = told.get("pageCategories")
    page = label(pages[0]) if isinstance(pages, list) and pages else None
    shown = kind in ("search", "impression")
    return found + [
        {
            **base,
            "type": "impression" if shown else kind,
            "item_id": first(fields(one.get("product")).get("id")),
            "price": price(fields(fields(one.get("product")).get("priceInfo")).get("price")),
            "quantity": count("quantity", one.get("quantity")) if kind in COUNTED else None,
            "position": place if shown else None,
            "list_name": page if shown else None,
            "request_id": token,
            "event_id": identity.of_order(order, place)
            if order
            else identity.of_line(whole, place, len(products)),
        }
        for place, one in enumerate(products, 1)
    ]


COUNTED = ("add_to_cart", "remove_from_cart", "purchase_completed")
USER_EVENTS = System(events, translate)
