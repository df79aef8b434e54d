"""Segment's and RudderStack's tracking calls, with the events of their common ecommerce specification.

{"type": "track", "event": "Product Viewed", "messageId": "m1", "anonymousId": "a", "userId": "u",
 "timestamp": "2026-01-31T12:00:00Z", "sentAt": .., "context": {..}, "properties": {"product_id": "507f", ..}}
"""

from collections.abc import Mapping
from typing import Any

from feature_repo.vocabulary.mediums import channel_of
from feature_repo.vocabulary.trackers import RETURN, SEGMENT
from serving.payloads import identity
from serving.payloads.payload import (
    RETURNED,
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
from serving.payloads.terms import ITEM_KEYS, Terms

FORMER = {  # of the specification's first version
    "viewed_product_category": "product_list_viewed",
    "clicked_product": "product_clicked",
    "viewed_product": "product_viewed",
    "added_product": "product_added",
    "removed_product": "product_removed",
    "completed_order": "order_completed",
}


def calls(body: Any) -> list[Any]:
    """The calls of a batch, or the one that the body is; a batch's context is that of calls without one."""
    common = fields(body)
    batch = common.get("batch")
    if not isinstance(batch, list):
        return [common]
    context = common.get("context")
    return [{"context": context, **call} if isinstance(call, dict) else {} for call in batch]


def sent_at(body: Any) -> Any:
    """Of the batch, else of its first call."""
    batch = fields(body).get("batch")
    head = fields(batch[0]) if isinstance(batch, list) and batch else {}
    return first(fields(body).get("sentAt"), head.get("sentAt"))


def translate(call: Any, terms: Terms) -> list[dict[str, Any]]:
    """One event per product; calls other than `track` are none of ours."""
    if text(call.get("type")) not in (None, "track"):
        raise Dropped(UNKNOWN)
    name = "_".join((text(call.get("event")) or "").lower().split())
    kind = SEGMENT.get(FORMER.get(name, name))
    if kind is None or kind == RETURN:
        raise Dropped(RETURNED if kind else UNKNOWN)
    context, told = fields(call.get("context")), fields(call.get("properties"))
    # RudderStack counts visits; Segment has none: a visit is then its device.
    ids = identity.visitor(call.get("anonymousId"), call.get("userId"), context.get("sessionId")).ids()
    when = first(call.get("originalTimestamp"), call.get("timestamp"))
    base = {
        "type": kind,
        **ids,
        "event_ts": moment(when),
        "channel": channel_of(text(fields(context.get("campaign")).get("medium"))),
        "country": label(fields(context.get("location")).get("country")),
        "query": label(told.get("query")) if kind == "search" else None,
        "consent": _agreed(context, terms.consent_category),
    }
    products = lines(told.get("products")) if kind in ("impression", "purchase_completed") else [told]
    whole = first(call.get("messageId")) or identity.of_content("segment", ids, when, name, told)
    order = text(told.get("order_id")) if kind == "purchase_completed" else None
    keys = (terms.segment_item, *ITEM_KEYS["segment"])
    named = (told.get("request_id"), told.get("list_id"), told.get("category"))
    return [
        {
            **base,
            "item_id": None if kind == "search" else first(*(line.get(key) for key in keys)),
            "position": count("position", line.get("position")),
            "price": price(line.get("price")),
            "quantity": count("quantity", line.get("quantity"))
            if kind not in ("impression", "product_viewed")
            else None,
            **(list_of(*named) if kind in ("impression", "click") else {}),
            "event_id": identity.of_order(order, place)
            if order
            else identity.of_line(whole, place, len(products)),
        }
        for place, line in enumerate(products, 1)
    ]


def _agreed(context: Mapping[str, Any], category: str) -> bool:
    """Segment tells of each category whether it is allowed, RudderStack which are; neither: agreed.

    Where RudderStack names what was allowed, what it does not name is not, as for its own destinations.
    """
    said = fields(fields(context.get("consent")).get("categoryPreferences")).get(category)
    managed = fields(context.get("consentManagement"))
    allowed, denied = listed(managed.get("allowedConsentIds")), listed(managed.get("deniedConsentIds"))
    return said is not False and category not in denied and (not allowed or category in allowed)


TRACKS = System(calls, translate, sent_at)
