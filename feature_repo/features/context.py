"""The closed words of a visit as small integers, the same in training and serving; 0 means unknown."""

import zlib

from feature_repo.events import CHANNELS, DEVICES

COUNTRY_BUCKETS = 32  # countries are hashed: the list is open and long
_DEVICE_CODES = {name: i for i, name in enumerate(DEVICES, 1)}
_CHANNEL_CODES = {name: i for i, name in enumerate(CHANNELS, 1)}


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
