"""The canonical event and item: schemas of data/raw, and the check of an event at the door.

The live endpoint and the batch import use the same `check_event`, so an event is refused for the same
reason wherever it arrives.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa

from feature_repo.errors import EventError

TIMESTAMP = pa.timestamp("us", tz="UTC")
TYPES = (
    "impression",
    "click",
    "product_viewed",
    "add_to_cart",
    "remove_from_cart",
    "purchase_completed",
    "search",
    "dwell",
    "scroll",
)
# The three that count as contact with a product. A click leads to a view: counting both would count twice.
PRODUCT_TYPES = ("product_viewed", "add_to_cart", "purchase_completed")
HISTORY = 20  # contacts of a shopper that the folds keep and the models see, the newest
ITEMLESS_TYPES = ("search", "scroll")

# Closed words that become small integers, the same in training and serving; code 0 means unknown.
SURFACES = (
    "homepage_hero",
    "pdp_fbt",
    "cart_upsell",
    "category_sort",
    "similar_items",
    "email_abandoned_cart",
    "email_browse_abandonment",
    "email_post_purchase",
)
DEVICES = ("desktop", "mobile", "tablet")
CHANNELS = (
    "direct",
    "organic search",
    "paid search",
    "referral",
    "social",
    "affiliates",
    "display",
    "email",
    "push",
    "(other)",
)
KINDS = {"product_viewed": 1, "add_to_cart": 2, "purchase_completed": 3}

SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_ts", TIMESTAMP, nullable=False),
        pa.field("created_ts", TIMESTAMP, nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string()),
        pa.field("surface", pa.string()),
        pa.field("request_id", pa.string()),
        pa.field("slot", pa.int32()),
        pa.field("list_name", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("price", pa.float64()),
        pa.field("quantity", pa.int32()),
        pa.field("query", pa.string()),
        pa.field("device", pa.string()),
        pa.field("country", pa.string()),
        pa.field("channel", pa.string()),
        pa.field("consent", pa.bool_(), nullable=False),
    ]
)

ITEM_SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("description", pa.string()),
        pa.field("category_path", pa.string()),
        pa.field("brand", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("currency", pa.string()),
        pa.field("margin", pa.float64()),
        pa.field("stock", pa.int32()),
        pa.field("image_path", pa.string()),
        pa.field("accessories", pa.list_(pa.string())),
        pa.field("available_from", TIMESTAMP),
        pa.field("gtin", pa.string()),
        pa.field("url", pa.string()),
        pa.field("tags", pa.list_(pa.string())),
    ]
)

NAMES = tuple(SCHEMA.names)  # pyarrow makes a list of them anew each time
_NAMES = frozenset(NAMES)
UNCOUNTED = "uncounted"  # beside the canonical fields in the log: why the event counts for nothing
_CONTENT = tuple(name for name in NAMES if name not in ("event_ts", "created_ts"))
_ID = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,256}\Z")
# Limits of the check at the door; pipelines/ingest/quarantine.py turns the same ones into SQL.
ID_FIELDS = ("event_id", "user_id", "session_id", "item_id", "request_id")
TEXT_FIELDS = ("surface", "list_name", "query", "device", "country", "channel")
COUNT_FIELDS = {"slot": (0, 10_000), "position": (1, 1_000_000), "quantity": (1, 1_000_000)}
MAX_PRICE = 1e9
EARLIEST = datetime.fromisoformat("2000-01-01T00:00:00+00:00")
LAST = datetime.fromisoformat("2100-01-01T00:00:00+00:00")
ITEM_NAMES = tuple(ITEM_SCHEMA.names)


def is_id(value: object) -> bool:
    """True for a string of 1 to 256 characters without control characters.

    >>> is_id("sku 12/blue"), is_id("a\\nb"), is_id(""), is_id(7)
    (True, False, False, False)
    """
    return isinstance(value, str) and _ID.match(value) is not None


def identity(event: Mapping[str, Any]) -> bytes:
    """16 bytes that are the same for an event and its resend: of its `event_id`, its visit and its content.

    Whoever guesses an `event_id` can therefore not take its place. Times are left out: an event that was sent
    without `event_ts` is stamped anew with each try. Absent and None mean the same.

    >>> identity({"event_id": "e1", "session_id": "s1"}) == identity({"event_id": "e1", "session_id": "s2"})
    False
    """
    return hashlib.blake2b(orjson.dumps([event.get(name) for name in _CONTENT]), digest_size=16).digest()


def check_event(event: Mapping[str, Any], latest: datetime) -> None:
    """Raise EventError, naming the first field that is wrong, unless the event is canonical.

    `event` holds python values as in SCHEMA (`event_ts` an aware datetime); absent and None mean the same.
    `latest` is the newest `event_ts` accepted (arrival time plus the clock skew that the shop allows).
    """
    if not event.keys() <= _NAMES:
        name = next(name for name in event if name not in _NAMES)
        raise EventError(name, event[name], f"the fields {', '.join(NAMES)}")
    for name in ID_FIELDS:
        value = event.get(name)
        required = name in ("event_id", "session_id")
        if (value is not None or required) and not is_id(value):
            raise EventError(name, value, "a string of 1 to 256 characters without control characters")
    if event.get("type") not in TYPES:
        raise EventError("type", event.get("type"), f"one of {', '.join(TYPES)}")
    if event.get("item_id") is None and event["type"] not in ITEMLESS_TYPES:
        raise EventError("item_id", None, f"an item for an event of type {event['type']}")
    _check_time(event, latest)
    for name in TEXT_FIELDS:
        value = event.get(name)
        if value is not None and not is_id(value):
            raise EventError(name, value, "text of 1 to 256 characters without control characters")
    for name, (low, high) in COUNT_FIELDS.items():
        value = event.get(name)
        if value is not None and (type(value) is not int or not low <= value <= high):
            raise EventError(name, value, f"a whole number from {low} to {high}")
    price = event.get("price")
    if price is not None and not (type(price) in (int, float) and 0 <= price <= MAX_PRICE):
        raise EventError("price", price, f"a finite number from 0 to {MAX_PRICE:.0f}")
    if type(event.get("consent", True)) is not bool:
        raise EventError("consent", event["consent"], "true or false")


def _check_time(event: Mapping[str, Any], latest: datetime) -> None:
    ts = event.get("event_ts")
    if not isinstance(ts, datetime) or ts.tzinfo is None:
        raise EventError("event_ts", ts, "an instant with a time zone, for example 2026-01-31T12:00:00Z")
    if not EARLIEST <= ts <= latest:
        raise EventError("event_ts", ts.isoformat(), f"{EARLIEST.isoformat()} to {latest.isoformat()}")
