"""Snowplow: the tracker protocol, and in it the ecommerce events of its own schemas.

{"schema": "iglu:../payload_data/..", "data": [{"e": "ue", "eid": "..", "duid": "d", "sid": "s", "dtm": "17",
  "ue_pr": {"data": {"schema": "iglu:../snowplow_ecommerce_action/..", "data": {"type": "add_to_cart"}}},
  "co": {"data": [{"schema": "iglu:../product/..", "data": {"id": "P1", "price": 5}}]}}]}
ue_pr and co are JSON as text; ue_px and cx are the same in base64.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import orjson

from feature_repo.vocabulary.trackers import RETURN, SNOWPLOW
from serving.payloads import identity
from serving.payloads.payload import (
    RETURNED,
    UNKNOWN,
    Dropped,
    System,
    count,
    fields,
    first,
    lines,
    list_of,
    listed,
    moment,
    price,
    text,
)
from serving.payloads.terms import Terms

PARTS, MAX_PARTS = ",[{", 2_048  # of the JSON inside one field of an event

# eventType of consent_preferences/1-0-0; the others are allow_all and implicit_consent
REFUSALS, SOME = ("deny_all", "withdrawn", "expired", "pending"), "allow_selected"


def events(body: Any) -> list[Any]:
    """Of a POST; what a GET says in its query is one event."""
    told = fields(body)
    return listed(told.get("data")) if "schema" in told or "data" in told else [told]


def sent_at(body: Any) -> Any:
    """`stm` of the first event: a tracker stamps all that it sends at once alike."""
    return fields(next(iter(events(body)), None)).get("stm")


def translate(event: Any, terms: Terms) -> list[dict[str, Any]]:
    """One event per product entity of an ecommerce action."""
    told = fields(event)
    name, action = _told(_inside(told, "ue_pr", "ue_px"))
    kind = SNOWPLOW.get(text(action.get("type")) or "") if name == "snowplow_ecommerce_action" else None
    if kind is None or kind == RETURN:
        raise Dropped(RETURNED if kind else UNKNOWN)
    entities = [_entity(one) for one in listed(_inside(told, "co", "cx").get("data"))]
    products = lines([entity for name, entity in entities if name == "product"])
    session = next((entity for name, entity in entities if name == "client_session"), {})
    said = [entity for name, entity in entities if name == "consent_preferences"]
    agreed = all(_agreed(one, terms.consent_category) for one in said)
    order = next((entity.get("transaction_id") for name, entity in entities if name == "transaction"), None)
    device = first(told.get("duid"), session.get("userId"), told.get("nuid"), told.get("tnuid"))
    ids = identity.visitor(device, told.get("uid"), first(told.get("sid"), session.get("sessionId"))).ids()
    when = first(told.get("ttm"), told.get("dtm"))
    named = list_of(action.get("name"))
    whole = first(told.get("eid")) or identity.of_content("snowplow", ids, when, kind, products)
    bought = text(order) if kind == "purchase_completed" else None
    return [
        {
            **ids,
            "type": kind,
            "event_ts": moment(when),
            "consent": agreed,
            "item_id": first(product.get("id")),
            "price": price(product.get("price")),
            "position": count("position", product.get("position")),
            "quantity": count("quantity", product.get("quantity"))
            if kind not in ("impression", "click", "product_viewed")
            else None,
            **(named if kind in ("impression", "click") else {}),
            "event_id": identity.of_order(bought, place)
            if bought
            else identity.of_line(whole, place, len(products)),
        }
        for place, product in enumerate(products, 1)
    ]


def _agreed(consent: Mapping[str, Any], category: str) -> bool:
    """What an entity says of a category; its scopes count where only some were chosen."""
    kind = text(consent.get("eventType"))
    return kind not in REFUSALS and (kind != SOME or category in listed(consent.get("consentScopes")))


def _inside(event: Mapping[str, Any], plain: str, packed: str) -> Mapping[str, Any]:
    """The JSON object that a field holds as text, or its base64; empty where it holds none."""
    found = event.get(plain)
    if not isinstance(found, str):
        found = event.get(packed)
        if not isinstance(found, str):
            return {}
        try:
            padded = found + "=" * (-len(found) % 4)
            found = base64.urlsafe_b64decode(padded.encode("ascii")).decode()
        except (ValueError, binascii.Error):
            return {}
    if sum(map(found.count, PARTS)) > MAX_PARTS:
        return {}
    try:
        return fields(orjson.loads(found))
    except (ValueError, UnicodeEncodeError):
        return {}


def _told(wrapped: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Name and data of the event in an envelope `unstruct_event`."""
    return _entity(wrapped.get("data"))


def _entity(value: Any) -> tuple[str, Mapping[str, Any]]:
    """Name and data of something that names its schema: iglu:vendor/NAME/jsonschema/1-0-0."""
    told = fields(value)
    parts = (text(told.get("schema")) or "").split("/")
    return parts[1] if len(parts) == 4 else "", fields(told.get("data"))


TRACKER = System(events, translate, sent_at)
