"""Shopify's Web Pixels: the standard events, as a custom pixel posts them with fetch.

{"id": "e1", "name": "product_viewed", "clientId": "c", "timestamp": "2026-01-31T12:00:00Z",
 "customerPrivacy": {"preferencesProcessingAllowed": true, ..},  as init.customerPrivacy, which the pixel adds
 "data": {"productVariant": {"id": "9", "sku": "S", "price": {"amount": 9.9}, "product": {"id": "7"}}}}
"""

from collections.abc import Mapping
from typing import Any

from feature_repo.vocabulary.trackers import SHOPIFY
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
from serving.payloads.terms import ITEM_KEYS, Terms


def events(body: Any) -> list[Any]:
    return listed(body)


def translate(event: Any, terms: Terms) -> list[dict[str, Any]]:
    """One event per product variant. An e-mail address or a name of the payload is never read."""
    told = fields(event)
    name, data = text(told.get("name")) or "", fields(told.get("data"))
    kind = SHOPIFY.get(name)
    if kind is None:
        raise Dropped(UNKNOWN)
    checkout = fields(data.get("checkout"))
    order = fields(checkout.get("order"))
    customer = _number(fields(order.get("customer")).get("id"))
    ids = identity.visitor(told.get("clientId"), customer).ids()
    when = first(told.get("timestamp"))
    agreed = fields(told.get("customerPrivacy")).get("preferencesProcessingAllowed") is not False
    base = {**ids, "type": kind, "event_ts": moment(when), "consent": agreed}
    own = first(told.get("id"))
    if kind == "search":
        query = label(fields(data.get("searchResult")).get("query"))
        own = own or identity.of_content("shopify", ids, when, name, query)
        return [{**base, "query": query, "event_id": own}]
    variants = _variants(kind, data, checkout)
    whole = own or identity.of_content("shopify", ids, when, name, variants)
    named = list_of(fields(data.get("collection")).get("title")) if kind == "impression" else {}
    number = _number(first(order.get("id"), checkout.get("token"))) if kind == "purchase_completed" else None
    return [
        {
            **base,
            "item_id": _item(variant, terms),
            "price": price(fields(variant.get("price")).get("amount")),
            "quantity": count("quantity", quantity),
            "position": place if kind == "impression" else None,
            **named,
            "event_id": identity.of_order(number, place)
            if number
            else identity.of_line(whole, place, len(variants)),
        }
        for place, (variant, quantity) in enumerate(variants, 1)
    ]


def _variants(
    kind: str, data: Mapping[str, Any], checkout: Mapping[str, Any]
) -> list[tuple[Mapping[str, Any], Any]]:
    """Variants and how many of each, None where the event does not tell."""
    if kind == "purchase_completed":
        bought = [line for line in lines(checkout.get("lineItems")) if line.get("variant") is not None]
        lines(bought)  # a tip alone has no variant, and is no product
        return [(fields(line["variant"]), line.get("quantity")) for line in bought]
    if kind == "impression":
        return [(variant, None) for variant in lines(fields(data.get("collection")).get("productVariants"))]
    if kind == "product_viewed":
        return [(variant, None) for variant in lines(data.get("productVariant"))]
    found = lines(data.get("cartLine"))  # null where the cart could not be read
    return [(fields(line.get("merchandise")), line.get("quantity")) for line in found]


def _item(variant: Mapping[str, Any], terms: Terms) -> str | None:
    """The shop's key of a product; another that is told where that one is not."""
    product = fields(variant.get("product"))
    keys = {
        "handle": _handle(product.get("url")),
        "product_id": _number(product.get("id")),
        "variant_id": _number(variant.get("id")),
        "sku": first(variant.get("sku")),
    }
    return next((keys[k] for k in (terms.shopify_item, *ITEM_KEYS["shopify"]) if keys[k]), None)


def _handle(url: Any) -> str | None:
    """`/products/tee?variant=1` -> `tee`."""
    path = (text(url) or "").partition("?")[0].partition("#")[0]
    return text(path.partition("/products/")[2].partition("/")[0])


def _number(value: Any) -> str | None:
    """`gid://shopify/Product/7` -> `7`; a plain id as it is."""
    found = first(value)
    return found.rpartition("/")[2] or None if found and found.startswith("gid://") else found


PIXELS = System(events, translate)
