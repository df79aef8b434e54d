"""Closed vocabularies that become small integers, the same in training and serving. Code 0 means unknown."""

from __future__ import annotations

import zlib

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
COUNTRY_BUCKETS = 32  # countries are hashed: the list is open and long
KINDS = {"product_viewed": 1, "add_to_cart": 2, "purchase_completed": 3}

_SURFACE_CODES = {name: i for i, name in enumerate(SURFACES, 1)}
_DEVICE_CODES = {name: i for i, name in enumerate(DEVICES, 1)}
_CHANNEL_CODES = {name: i for i, name in enumerate(CHANNELS, 1)}


def surface_code(surface: str | None) -> int:
    """1..8, 0 for another or none."""
    return _SURFACE_CODES.get(surface or "", 0)


def device_code(device: str | None) -> int:
    """1..3, 0 for another or none; case does not matter."""
    return _DEVICE_CODES.get((device or "").lower(), 0)


def channel_code(channel: str | None) -> int:
    """1..10, 0 for another or none; case does not matter."""
    return _CHANNEL_CODES.get((channel or "").lower(), 0)


def country_code(country: str | None) -> int:
    """1..COUNTRY_BUCKETS by CRC-32 of the lower-case name, 0 for none."""
    return zlib.crc32(country.lower().encode()) % COUNTRY_BUCKETS + 1 if country else 0


def encode_context(device: str | None, channel: str | None, country: str | None) -> tuple[int, int, int]:
    """The user tower's context, in the order of its input.

    >>> encode_context("Mobile", "Direct", None)
    (2, 1, 0)
    """
    return device_code(device), channel_code(channel), country_code(country)
