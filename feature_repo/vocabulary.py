"""The words of other systems and what each means here, the same in an import and for live events."""

from hashlib import blake2b
from typing import Any

from feature_repo.events import is_id

RETURN = "return"  # goods that came back: no event of ours, counted and passed over
GA4 = {
    "view_item_list": "impression",
    "select_item": "click",
    "view_item": "product_viewed",
    "add_to_cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "purchase": "purchase_completed",
    "view_search_results": "search",
    "refund": RETURN,
}
"""Event of Google Analytics 4 -> type."""
SEGMENT = {
    "product_list_viewed": "impression",
    "product_clicked": "click",
    "product_viewed": "product_viewed",
    "product_added": "add_to_cart",
    "product_removed": "remove_from_cart",
    "order_completed": "purchase_completed",
    "products_searched": "search",
    "order_refunded": RETURN,
}
"""Event of Segment's ecommerce specification, as its table is called -> type."""
SNOWPLOW = {
    "list_view": "impression",
    "list_click": "click",
    "product_view": "product_viewed",
    "add_to_cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "transaction": "purchase_completed",
    "refund": RETURN,
}
"""Type of Snowplow's ecommerce action -> type."""
SHOPIFY = {
    "collection_viewed": "impression",
    "product_viewed": "product_viewed",
    "product_added_to_cart": "add_to_cart",
    "product_removed_from_cart": "remove_from_cart",
    "checkout_completed": "purchase_completed",
    "search_submitted": "search",
}
"""Standard event of Shopify's Web Pixels -> type."""
ALGOLIA = {
    ("view", None): "product_viewed",
    ("click", None): "click",
    ("conversion", "addToCart"): "add_to_cart",
    ("conversion", "purchase"): "purchase_completed",
}
"""eventType and eventSubtype of Algolia Insights -> type."""
GOOGLE = {
    "search": "search",
    "category-page-view": "impression",
    "detail-page-view": "product_viewed",
    "add-to-cart": "add_to_cart",
    "remove-from-cart": "remove_from_cart",
    "purchase-complete": "purchase_completed",
}
"""eventType of Google's retail API -> type."""
CHANNELS = {
    **dict.fromkeys(("cpc", "ppc", "paidsearch", "paid_search"), "paid search"),
    **dict.fromkeys(("display", "banner", "cpm"), "display"),
    **dict.fromkeys(("social", "social-network", "social-media", "sm"), "social"),
    **dict.fromkeys(("affiliate", "affiliates"), "affiliates"),
    **dict.fromkeys(("email", "e-mail", "newsletter"), "email"),
    "(none)": "direct",
    "organic": "organic search",
    "referral": "referral",
    "push": "push",
}
"""Medium of the traffic source -> channel."""
GORSE_COLUMNS = {
    "feedback_type": "FeedbackType",
    "user_id": "UserId",
    "item_id": "ItemId",
    "value": "Value",
    "time_stamp": "Timestamp",
    "timestamp": "Timestamp",
    "is_hidden": "IsHidden",
    "categories": "Categories",
    "labels": "Labels",
    "comment": "Comment",
    "description": "Comment",
}
"""Column of Gorse's dumps and tables -> field of its API."""
NOTHING = (
    *("", "NULL", "null", "None", "none", "NaN", "nan", "NA", "N/A", "n/a", "#N/A", "#NA", "nil"),
    *("undefined", "\\N", "(not set)", "(none)", "(null)", "0000-00-00", "0000-00-00 00:00:00"),
)
"""Texts that say nothing, whatever blanks stand around them; databases and trackers write these."""


def event_id(*parts: Any) -> str:
    """The same for the same parts; a digest where they are no id as they stand.

    >>> event_id("purchase", "T7", "001")
    'purchase:T7:001'
    """
    text = ":".join("" if part is None else str(part) for part in parts)
    return text if is_id(text) else blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def channel_of(medium: Any) -> str | None:
    """The channel that a medium means; a word that is not known is (other)."""
    word = str(medium or "").strip().lower()
    return CHANNELS.get(word, None if word in NOTHING else "(other)")
