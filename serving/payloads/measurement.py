"""Google Analytics 4: the Measurement Protocol, rows of its BigQuery export, and pushes to GTM's dataLayer.

{"client_id": "1.2", "user_id": "U1", "timestamp_micros": "17...", "consent": {"ad_personalization": ..},
 "events": [{"name": "view_item", "params": {"session_id": "7", "items": [{"item_id": .., "price": ..}]}}]}
"""

from collections.abc import Mapping
from typing import Any

from feature_repo.vocabulary.mediums import channel_of
from feature_repo.vocabulary.trackers import GA4, RETURN
from serving.payloads import identity
from serving.payloads.payload import (
    RETURNED,
    UNKNOWN,
    US,
    Dropped,
    System,
    count,
    fields,
    first,
    from_1,
    label,
    lines,
    list_of,
    listed,
    moment,
    price,
    text,
)
from serving.payloads.terms import Terms

COUNTED = ("add_to_cart", "remove_from_cart", "purchase_completed")  # whose quantity is the shopper's doing
NAMES = {**GA4, "search": "search"}  # in the export Google's own view_search_results stands beside it


def hits(body: Any) -> list[Any]:
    """Each event with what the body says of all of them."""
    common = fields(body)
    return [{**common, "events": None, "event": event} for event in listed(common.get("events"))]


def pushes(body: Any) -> list[Any]:
    """Pushes to the dataLayer, one or several; a tag adds client_id, session_id and user_id to each."""
    return [
        {**push, "event": {"name": push.get("event"), "params": {**push, **fields(push.get("ecommerce"))}}}
        for push in map(fields, listed(body))
    ]


def rows(body: Any) -> list[Any]:
    """Rows of the BigQuery export, one or a list of them, as hits."""
    return [_hit_of(row) for row in map(fields, listed(body))]


def translate(hit: Any, terms: Terms) -> list[dict[str, Any]]:
    """One event per item; a search has none."""
    event = fields(hit["event"])
    name, params = text(event.get("name")), fields(event.get("params"))
    kind = NAMES.get(name or "")
    if kind is None or kind == RETURN:
        raise Dropped(RETURNED if kind else UNKNOWN)
    device = first(hit.get("client_id"), hit.get("app_instance_id"))
    ids = identity.visitor(device, hit.get("user_id"), params.get("session_id")).ids()
    when = first(event.get("timestamp_micros"), hit.get("timestamp_micros"))
    refused = fields(hit.get("consent")).get("ad_personalization") == "DENIED"
    base = {
        "type": kind,
        **ids,
        "event_ts": moment(when, US),
        "device": label(fields(hit.get("device")).get("category")),
        "country": label(fields(hit.get("user_location")).get("country_id")),
        "channel": channel_of(text(params.get("medium"))),
        "consent": not refused,
    }
    whole = identity.of_content("ga4", ids, when, name, params)
    if kind == "search":
        told = {"query": label(params.get("search_term"))}
        return [{**base, **told, "event_id": whole}]
    items = lines(params.get("items"))
    positions = from_1([item.get("item_list_index", item.get("index")) for item in items])
    order = text(params.get("transaction_id")) if kind == "purchase_completed" else None
    return [
        {
            **base,
            **_line(item, params),
            "position": at,
            "quantity": count("quantity", item.get("quantity")) if kind in COUNTED else None,
            "event_id": identity.of_order(order, place)
            if order
            else identity.of_line(whole, place, len(items)),
        }
        for place, (item, at) in enumerate(zip(items, positions, strict=True), 1)
    ]


def _line(item: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    names = (item, params)
    lists = [own.get(name) for name in ("item_list_id", "item_list_name") for own in names]
    return {
        "item_id": first(item.get("item_id"), item.get("item_name")),
        "price": price(item.get("price")),
        **list_of(*lists),
    }


def _hit_of(row: Mapping[str, Any]) -> dict[str, Any]:
    params = {}
    for param in listed(row.get("event_params")):
        values = fields(fields(param).get("value")).values()
        params[str(fields(param).get("key"))] = next((v for v in values if v is not None), None)
    stored = fields(row.get("privacy_info")).get("analytics_storage")
    return {
        "client_id": row.get("user_pseudo_id"),
        "user_id": row.get("user_id"),
        "timestamp_micros": row.get("event_timestamp"),
        "device": row.get("device"),
        "user_location": {"country_id": fields(row.get("geo")).get("country")},
        "consent": {"ad_personalization": "DENIED"} if stored == "No" else None,
        "event": {
            "name": row.get("event_name"),
            "params": {
                **params,
                **fields(row.get("ecommerce")),
                "session_id": params.get("ga_session_id"),
                "medium": fields(row.get("traffic_source")).get("medium"),
                "items": row.get("items"),
            },
        },
    }


MEASUREMENT, DATA_LAYER = System(hits, translate), System(pushes, translate)
EXPORT = System(rows, translate)
