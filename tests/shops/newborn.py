"""A new item on its way into a running shop: its row of the catalogue, written and announced."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from redis import Redis

from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.online import changes
from feature_repo.online.lifetimes import LISTED
from feature_repo.online.rows import OnlineView, write_newer

VIEW = OnlineView(ITEM_CATALOGUE, "endcap")
PLAIN: dict[str, Any] = {
    "title": "A thing that was not there before",
    "category_path": "Home/Apparel/Kind 0",
    "brand": "brand 1",
    "price": 20.0,
    "margin": 0.3,
    "stock": 9,
    "available_from": 0,
}


def arrive(redis: Redis, *items: str, ts: int | None = None, **fields: Any) -> None:
    """`items` are in the catalogue from now on (or say other things)."""
    at = time.time_ns() // 1000 if ts is None else ts
    write_newer(redis, VIEW, [(item, at, PLAIN | fields) for item in items])
    redis.sadd(LISTED, *items)
    changes.announce(redis, items)


def leave(redis: Redis, items: Iterable[str]) -> None:
    """They left it."""
    for item in items:
        redis.srem(LISTED, item)
        changes.announce(redis, [item])
