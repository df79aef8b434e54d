"""Metarank: its four kinds of events, as its /feedback takes them and as its history files hold them.

{"event": "ranking", "id": "81f4", "timestamp": "1599391467000", "user": "u", "items": [{"id": ..}]}
{"event": "interaction", "id": "0f4c", "ranking": "81f4", .., "type": "click", "item": "i"}
"""

from collections.abc import Mapping
from typing import Any

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
    listed,
    moment,
    ours,
    price,
    text,
)
from serving.payloads.terms import Terms

TEXTS = ("title", "description", "category_path", "brand", "currency", "image_path", "gtin")
ALSO = {"name": "title", "category": "category_path", "image": "image_path", "image_url": "image_path"}


def events(body: Any) -> list[Any]:
    return listed(body)


def translate(event: Any, terms: Terms) -> list[dict[str, Any]]:
    """Impressions of a ranking, a contact of an interaction; `item` and `user` tell nothing that happened."""
    told = fields(event)
    kind = text(told.get("event"))
    if kind not in ("ranking", "interaction"):
        raise Dropped(UNKNOWN)
    user, visit = first(told.get("user")), first(told.get("session"))
    ids = identity.visitor(visit, user).ids()
    base = {**ids, "event_ts": moment(told.get("timestamp"))}
    known = values_of(told)
    if kind == "interaction":
        return _contact(told, base, known, terms)
    items = [first(item.get("id")) for item in lines(told.get("items"))]
    whole = first(told.get("id")) or identity.of_content("metarank", base, items)
    return [
        {
            **base,
            "type": "impression",
            "item_id": item,
            "position": place,
            "list_name": label(known.get("source")),
            "request_id": ours(label(told.get("id"))),
            "event_id": identity.of_line(whole, place, len(items)),
        }
        for place, item in enumerate(items, 1)
    ]


def _contact(
    told: Mapping[str, Any], base: Mapping[str, Any], known: Mapping[str, Any], terms: Terms
) -> list[dict[str, Any]]:
    """A view that names its ranking is also a click in that list: clicks alone are no contact here."""
    word = (text(told.get("type")) or "").lower()
    kind = terms.words.get(word)
    if kind is None:
        raise Dropped(UNKNOWN)
    ranking, item = label(told.get("ranking")), first(told.get("item"))
    kinds = ("click", kind) if kind == "product_viewed" and ranking else (kind,)
    whole = first(told.get("id")) or identity.of_content("metarank", base, word, ranking, item)
    return [
        {
            **base,
            "type": one,
            "item_id": item,
            "request_id": ours(ranking),
            "price": price(known.get("price")),
            "quantity": count("quantity", known.get("count", known.get("quantity")))
            if one not in ("click", "product_viewed")
            else None,
            "event_id": identity.of_line(whole, place, len(kinds)),
        }
        for place, one in enumerate(kinds, 1)
    ]


def values_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` of an event as name -> value."""
    pairs = map(fields, listed(told.get("fields")))
    return {name: pair.get("value") for pair in pairs if (name := text(pair.get("name")))}


def item_of(event: Any) -> dict[str, Any] | None:
    """An `item` event as POST /v1/items takes it, None for another event or one without an item."""
    told = fields(event)
    name = first(told.get("item"))
    if told.get("event") != "item" or name is None:
        return None
    values = {ALSO.get(key, key): value for key, value in values_of(told).items()}
    lists = {key: "/".join(filter(None, map(text, v))) for key, v in values.items() if isinstance(v, list)}
    found = {key: first(lists.get(key), values.get(key)) for key in TEXTS}
    found |= {"item_id": name}
    numbers = {"price": price(values.get("price")), "margin": price(values.get("margin"))}
    return {key: value for key, value in {**found, **numbers}.items() if value is not None}


FEEDBACK = System(events, translate)
