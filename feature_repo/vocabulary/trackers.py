"""What each event of another system is here, and the columns of its dumps."""

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
