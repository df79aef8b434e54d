"""A client of Endcap's storefront interface: lists, pages and events, with or without asyncio.

with Endcap("http://127.0.0.1:3000") as shop:
    rail = shop.recommend("homepage_hero", session_id="S1", fields=["title", "price"])
    shop.events([{"type": "product_viewed", "session_id": "S1", "item_id": rail["items"][0]["item_id"]}])
"""

from endcap_client.clients import AsyncEndcap, Endcap
from endcap_client.errors import EndcapClientError, Refused, Unavailable
from endcap_client.messages import Event, List, Receipt, Slot, Surface

__all__ = [
    "AsyncEndcap",
    "Endcap",
    "EndcapClientError",
    "Event",
    "List",
    "Receipt",
    "Refused",
    "Slot",
    "Surface",
    "Unavailable",
]
