"""Algolia Insights: views, clicks and conversions on objects of an index.

{"events": [{"eventType": "conversion", "eventSubtype": "purchase", "eventName": "Order", "userToken": "u",
  "timestamp": 1769860800000, "objectIDs": ["o1"], "objectData": [{"price": 9.9, "quantity": 1}]}]}
"""

from typing import Any

from feature_repo.vocabulary.trackers import ALGOLIA
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
    list_of,
    listed,
    moment,
    price,
    text,
)
from serving.payloads.terms import Terms


def events(body: Any) -> list[Any]:
    return listed(fields(body).get("events"))


def translate(event: Any, terms: Terms) -> list[dict[str, Any]]:
    """One event per object. A view of several is a list that was shown; a conversion needs its subtype."""
    told = fields(event)
    kind = ALGOLIA.get((text(told.get("eventType")) or "", text(told.get("eventSubtype"))))
    if kind is None:
        raise Dropped(UNKNOWN)
    objects, positions = _plain(told.get("objectIDs")), _plain(told.get("positions"))
    if not 1 <= len(objects) <= MAX_LINES:
        raise Dropped(TOO_MANY if objects else NO_PRODUCT)
    kind = "impression" if kind == "product_viewed" and len(objects) > 1 else kind
    ids = identity.visitor(told.get("userToken"), told.get("authenticatedUserToken")).ids()
    when, counted = first(told.get("timestamp")), kind not in ("impression", "click", "product_viewed")
    whole = identity.of_content("algolia", ids, when, told.get("eventType"), told.get("eventName"), objects)
    padded = [*map(fields, listed(told.get("objectData"))), *([{}] * len(objects))]
    return [
        {
            **ids,
            "type": kind,
            "event_ts": moment(when),
            "item_id": first(item),
            "position": count("position", at),
            "price": price(data.get("price")),
            "quantity": count("quantity", data.get("quantity")) if counted else None,
            "request_id": list_of(data.get("queryID"), told.get("queryID"))["request_id"],
            "event_id": identity.of_line(whole, place, len(objects)),
        }
        for place, (item, at, data) in enumerate(
            zip(objects, [*positions, *([None] * len(objects))], padded, strict=False), 1
        )
    ]


def _plain(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


INSIGHTS = System(events, translate)
