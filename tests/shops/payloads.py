"""One real-looking body of each system, by the public shapes of its documentation.

PAYLOADS[name] = (system, how it is read, body); `at` is when all of it happened.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import orjson

from serving.compat import gtag
from serving.payloads import gorse, insights, measurement, metarank, pixels, retail, snowplow, tracks, ubi
from serving.payloads.payload import System

SP = "iglu:com.snowplowanalytics.snowplow"


def packed(value: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")


# As gtag.js writes them: one event in the address, several as lines of the body.
ONE = (
    "v=2&tid=G-1&_p=17&cid=123.456&ul=en-us&uid=U1&_s=3&sid=7&sct=1&seg=1&dl=https%3A%2F%2Fshop.example%2F&dr="
    "&gcs=G1--&npa=0&cu=USD&en=purchase&_c=1&ep.transaction_id=T1&epn.value=23.48&_et=12&ep.currency=USD"
    "&pr1=idSKU_1~nmA%20~~%20tee~brG~caTops~c2Tees~pr9.99~qt2~k0size~v0M&pr2=idSKU_2~nmMug~pr3.5~qt1~lp1"
)
SHARED = (
    "v=2&tid=G-1&_p=17&cid=123.456&uid=U1&_s=4&sid=7&dl=https%3A%2F%2Fa.example%2F&gcs=G111&_x=%F0%9F%92%A5"
)
LINES = (
    "en=page_view&_ee=1\r\n"
    "en=view_item_list&ep.item_list_id=related_products&ep.item_list_name=Related"
    "&pr1=idSKU_1~pr9.99~lp0&pr2=nmUnnamed~pr3.5~lp1\r\n"
    "en=select_item&pr1=idSKU_1~nmTee~lnSale~lisearch_results~lp3&_et=5\r\n"
    "en=add_to_cart&pr1=idSKU_1~pr9.99~qt2\r\nen=add_to_cart&pr1=idSKU_1~pr9.99~qt2\r\n"
    "en=view_search_results&ep.search_term=red%20shirt\r\n"
    "en=refund&ep.transaction_id=T1&pr1=idSKU_1~qt1"
)


def pixels_of(iso: str) -> list[dict[str, Any]]:
    """Standard events of Shopify's Web Pixels, as complete as its published types but for `context`."""
    euros = {"amount": 9.9, "currencyCode": "EUR"}
    product = dict.fromkeys(("type", "untranslatedTitle")) | {"id": "7", "title": "Tee", "vendor": "V"}
    variant = {
        **dict.fromkeys(("title", "untranslatedTitle"), "Green"),
        "id": "41",
        "sku": "TEE-G",
        "price": euros,
        "image": {"src": None},
        "product": product | {"url": "/products/tee?variant=41"},
    }
    line = {"title": "Tee", "quantity": 2, "variant": variant, "finalLinePrice": {**euros, "amount": 19.8}}
    line |= {"id": "l1", "discountAllocations": [], "properties": [], "sellingPlanAllocation": None}
    tip = line | {"id": "l2", "title": "Tip", "quantity": 1, "variant": None}
    untold = ("billingAddress", "shippingAddress", "shippingLine", "delivery", "phone", "smsMarketingPhone")
    checkout = {
        **dict.fromkeys(untold),
        **{name: [] for name in ("attributes", "discountApplications", "transactions")},
        **dict.fromkeys(("subtotalPrice", "totalPrice", "totalTax", "discountsAmount"), euros),
        **dict.fromkeys(("buyerAcceptsEmailMarketing", "buyerAcceptsSmsMarketing"), False),
        "lineItems": [line, tip],
        "token": "tok",
        "email": "jo@example.com",
        "currencyCode": "EUR",
        "localization": {
            "country": {"isoCode": "DE"},
            "language": {"isoCode": "de"},
            "market": {"handle": None, "id": None},
        },
        "order": {"id": "gid://shopify/Order/99", "customer": None},
    }
    in_cart = {"quantity": 1, "merchandise": variant, "cost": {"totalAmount": euros}}
    sale = {"id": "5", "title": "Sale", "productVariants": [variant]}
    data = (
        ("product_viewed", {"productVariant": variant}),
        ("product_added_to_cart", {"cartLine": in_cart}),
        ("product_added_to_cart", {"cartLine": None}),
        ("collection_viewed", {"collection": sale}),
        ("search_submitted", {"searchResult": {"query": "tee", "productVariants": [variant]}}),
        ("checkout_completed", {"checkout": checkout}),
        ("product_removed_from_cart", {"cartLine": in_cart}),
        ("cart_viewed", {"cart": None}),
    )
    told = {"type": "standard", "clientId": "c1", "timestamp": iso, "context": {"document": {}}}
    return [
        {**told, "id": f"x{n}", "name": name, "seq": n, "data": value}
        for n, (name, value) in enumerate(data, 1)
    ]


def payloads(at: datetime) -> dict[str, tuple[str, System, Any]]:
    us = int(at.timestamp() * 1e6)
    iso, ms = at.astimezone(UTC).isoformat().replace("+00:00", "Z"), us // 1000
    tee = {"item_id": "SKU_1", "item_name": "Tee", "price": 9.99, "quantity": 2, "index": 0}
    mug = {"item_id": "SKU_2", "item_brand": "G", "price": "3.5", "quantity": 1, "index": 1}
    hit = {"client_id": "123.456", "user_id": "U1", "timestamp_micros": str(us)}
    ga4 = {
        **hit,
        "consent": {"ad_user_data": "GRANTED", "ad_personalization": "GRANTED"},
        "events": [
            {
                "name": "view_item_list",
                "params": {
                    "session_id": "7",
                    "item_list_id": "related_products",
                    "item_list_name": "Related",
                    "items": [tee, mug],
                },
            },
            {"name": "add_to_cart", "params": {"session_id": "7", "currency": "USD", "items": [tee]}},
            {"name": "search", "params": {"session_id": "7", "search_term": "shirt"}},
            {
                "name": "purchase",
                "params": {"session_id": "7", "transaction_id": "T1", "currency": "USD", "items": [tee, mug]},
            },
            {"name": "refund", "params": {"transaction_id": "T1"}},
            {"name": "page_view", "params": {}},
        ],
    }
    push = {
        "event": "select_item",
        "client_id": "123.456",
        "session_id": 7,
        "timestamp_micros": us,
        "ecommerce": {"items": [{**mug, "index": 3, "item_list_id": "search_results"}]},
    }
    row = {
        "event_name": "view_item",
        "event_timestamp": str(us),
        "user_pseudo_id": "123.456",
        "event_params": [{"key": "ga_session_id", "value": {"string_value": None, "int_value": "7"}}],
        "device": {"category": "mobile"},
        "geo": {"country": "Norway"},
        "traffic_source": {"medium": "cpc"},
        "privacy_info": {"analytics_storage": "No"},
        "items": [tee],
    }
    product = {"product_id": "507f", "sku": "G-32", "name": "Monopoly", "price": 18.99, "quantity": 1}
    call = {
        "type": "track",
        "anonymousId": "a1",
        "userId": "U1",
        "timestamp": iso,
        "sentAt": iso,
        "context": {"page": {"path": "/"}, "campaign": {"medium": "email"}},
    }
    order = {
        "order_id": "50314b8e",
        "currency": "USD",
        "products": [product, {**product, "product_id": "505b"}],
    }
    batch = {
        "batch": [
            {**call, "event": "Product Viewed", "messageId": "m1", "properties": {**product, "position": 3}},
            {
                **call,
                "event": "Product List Viewed",
                "messageId": "m2",
                "properties": {"list_id": "hot_deals_1", "products": [{**product, "position": 1}]},
            },
            {**call, "event": "Order Completed", "messageId": "m3", "properties": order},
            {**call, "event": "Products Searched", "messageId": "m4", "properties": {"query": "blue"}},
            {**call, "event": "Clicked Product", "messageId": "m5", "properties": product},
            {**call, "type": "identify", "messageId": "m6", "traits": {"email": "jo@example.com"}},
        ],
        "sentAt": iso,
    }
    ecommerce = f"{SP}.ecommerce"
    action = {
        "schema": f"{ecommerce}/snowplow_ecommerce_action/jsonschema/1-0-2",
        "data": {"type": "transaction"},
    }
    entities = [
        {
            "schema": f"{ecommerce}/product/jsonschema/1-0-0",
            "data": {"id": "P1", "category": "c", "price": 5, "currency": "EUR", "quantity": 2},
        },
        {
            "schema": f"{ecommerce}/transaction/jsonschema/1-0-0",
            "data": {"transaction_id": "T9", "revenue": 10},
        },
        {"schema": f"{SP}/client_session/jsonschema/1-0-2", "data": {"userId": "d", "sessionId": "s9"}},
    ]
    cart = {"schema": action["schema"], "data": {"type": "list_view", "name": "frequently bought with"}}
    tracked = {"p": "web", "tv": "js-3", "duid": "d1", "uid": "U1", "dtm": str(ms), "stm": str(ms), "e": "ue"}
    collected = {
        "schema": f"{SP}/payload_data/jsonschema/1-0-4",
        "data": [
            {
                **tracked,
                "eid": "e1",
                "ue_px": packed({"schema": f"{SP}/unstruct_event/jsonschema/1-0-0", "data": action}),
                "cx": packed({"schema": f"{SP}/contexts/jsonschema/1-0-0", "data": entities}),
            },
            {
                **tracked,
                "eid": "e2",
                "sid": "s1",
                "ue_pr": orjson.dumps({"data": cart}).decode(),
                "co": orjson.dumps({"data": entities[:1]}).decode(),
            },
            {**tracked, "e": "pv", "eid": "e3"},
        ],
    }
    shopify = pixels_of(iso)
    ranked = {"timestamp": str(ms), "user": "u1", "session": "s1"}
    meta = [
        {"event": "item", "id": "i", "timestamp": str(ms), "item": "item1", "fields": []},
        {
            **ranked,
            "event": "ranking",
            "id": "81f4",
            "fields": [{"name": "source", "value": "search"}],
            "items": [{"id": "item3", "relevancy": 2.0}, {"id": "item1"}],
        },
        {**ranked, "event": "interaction", "id": "0f4c", "ranking": "81f4", "type": "click", "item": "item1"},
        {
            **ranked,
            "event": "interaction",
            "id": "0f4d",
            "type": "purchase",
            "item": "item1",
            "fields": [{"name": "count", "value": 2}, {"name": "price", "value": 4}],
        },
        {**ranked, "event": "interaction", "id": "0f4e", "type": "yawn", "item": "item1"},
    ]
    rows = [
        {"FeedbackType": "read", "UserId": "u", "ItemId": "i", "Value": 1.0, "Timestamp": iso, "Comment": ""},
        {"FeedbackType": "dislike", "UserId": "u", "ItemId": "i", "Timestamp": iso},
    ]
    token = {"eventName": "Product", "index": "prod", "userToken": "u", "timestamp": ms}
    query_id = "43b15df305339e827f0ac0bdc5ebcaa7"
    algolia = {
        "events": [
            {
                **token,
                "eventType": "click",
                "queryID": query_id,
                "objectIDs": ["o1"],
                "positions": [1],
            },
            {**token, "eventType": "view", "objectIDs": ["o1", "o2"]},
            {
                **token,
                "eventType": "conversion",
                "eventSubtype": "purchase",
                "objectIDs": ["o1"],
                "objectData": [{"price": "9.9", "quantity": 2, "queryID": query_id}],
                "currency": "EUR",
            },
            {**token, "eventType": "conversion", "objectIDs": ["o1"]},
        ]
    }
    google = {
        "eventType": "purchase-complete",
        "visitorId": "v",
        "sessionId": "s",
        "eventTime": iso,
        "productDetails": [{"product": {"id": "1"}, "quantity": 3}],
        "purchaseTransaction": {"id": "P7", "revenue": 30, "currencyCode": "EUR"},
        "userInfo": {"userId": "U1", "userAgent": "x"},
    }
    seen = {"client_id": "c", "query_id": "q1", "timestamp": iso}
    searched = [
        {**seen, "user_query": "shirt", "query_response_hit_ids": ["SKU1", "SKU2"], "query_attributes": {}},
        {
            **seen,
            "application": "shop",
            "action_name": "click",
            "message_type": "INFO",
            "event_attributes": {"object": {"object_id": "SKU2"}, "position": {"ordinal": 2}},
        },
        {**seen, "action_name": "product_hover", "event_attributes": {"object": {"object_id": "SKU2"}}},
    ]
    return {
        "ga4": ("ga4", measurement.MEASUREMENT, ga4),
        "gtag": ("ga4", gtag.HITS, gtag.hits(ONE.encode(), b"") + gtag.hits(SHARED.encode(), LINES.encode())),
        "gtm": ("gtm", measurement.DATA_LAYER, push),
        "ga4 export": ("ga4", measurement.EXPORT, [row]),
        "segment": ("segment", tracks.TRACKS, batch),
        "snowplow": ("snowplow", snowplow.TRACKER, collected),
        "shopify": ("shopify", pixels.PIXELS, shopify),
        "metarank": ("metarank", metarank.FEEDBACK, meta),
        "gorse": ("gorse", gorse.FEEDBACK, rows),
        "algolia": ("algolia", insights.INSIGHTS, algolia),
        "google": ("google", retail.USER_EVENTS, google),
        "ubi": ("ubi", ubi.DOCUMENTS, searched),
    }
