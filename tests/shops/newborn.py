"""A new item on its way into a running shop: its row of the catalogue, written and announced."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from redis import Redis

from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.words import COLUMNS, DELETED, tell
from feature_repo.online import changes
from feature_repo.online.listings import read_words, write_said, write_words
from feature_repo.online.rows import OnlineView

VIEW = OnlineView(ITEM_CATALOGUE)
PLAIN: dict[str, Any] = dict.fromkeys(COLUMNS) | {
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
    write_said(redis, VIEW, [(item, at, PLAIN | fields) for item in items])
    changes.announce_listings(redis, items)


def leave(redis: Redis, items: Sequence[str], ts: int | None = None) -> None:
    """They left it."""
    at = time.time_ns() // 1000 if ts is None else ts
    for item, (words, _) in zip(items, read_words(redis, VIEW, items), strict=True):
        tell(words, at, {DELETED: True})
        write_words(redis, VIEW, item, words)
    changes.announce_listings(redis, items)
