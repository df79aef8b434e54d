"""What may be said of an item: one check for the door, the stream and the import of a catalogue."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from feature_repo.errors import EventError
from feature_repo.events import EARLIEST, ITEM_NAMES, LAST, MAX_PRICE, is_id

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Limits, texts by their characters; pipelines/ingest/quarantine.py turns the same ones into SQL.
ITEM_TEXTS = {
    "title": 1_000,
    "category_path": 1_000,
    "image_path": 1_000,
    "url": 1_000,
    "brand": 256,
    "gtin": 256,
}
MAX_DESCRIPTION = 100_000
ITEM_NUMBERS = {"price": MAX_PRICE, "margin": 1.0}
MAX_STOCK = 2**31 - 1
MAX_ACCESSORIES = 1_000
MAX_TAGS, MAX_TAG = 100, 256
TAG = f"texts of 1 to {MAX_TAG} characters without control characters"
CURRENCY = "[A-Z]{3}"


def check_item(fields: Mapping[str, Any]) -> None:
    """Raise EventError, naming the first field that is wrong, unless `fields` may be said of an item.

    Any of ITEM_SCHEMA with python values (`available_from` an aware datetime); None clears a field, which
    item and title cannot be.

    >>> check_item({"item_id": "mug", "stock": -1})
    Traceback (most recent call last):
    feature_repo.errors.EventError: stock: -1 is not allowed; allowed: a whole number from 0 to 2147483647
    """
    for name in fields:
        if name not in ITEM_NAMES:
            raise EventError(name, fields[name], f"the fields {', '.join(ITEM_NAMES)}, deleted, event_ts")
    if not is_id(fields.get("item_id")):
        allowed = "a string of 1 to 256 characters without control characters"
        raise EventError("item_id", fields.get("item_id"), allowed)
    if "title" in fields and fields["title"] is None:
        raise EventError("title", None, "text; leave title out to keep it as it is")
    for name, value in fields.items():
        if value is not None and (allowed := _refused(name, value)):
            raise EventError(name, value, allowed)


def _refused(name: str, value: Any) -> str:
    """What would be allowed in a field of an item; empty where `value` is."""
    if name in ITEM_TEXTS and not _is_text(value, most := ITEM_TEXTS[name]):
        return f"text of 1 to {most} characters without control characters"
    if name == "description" and not (isinstance(value, str) and len(value) <= MAX_DESCRIPTION):
        return f"text of at most {MAX_DESCRIPTION} characters"
    if name in ITEM_NUMBERS:
        fits = type(value) in (int, float) and 0 <= value <= ITEM_NUMBERS[name]
        return "" if fits else f"a finite number from 0 to {ITEM_NUMBERS[name]:.0f}"
    if name == "stock" and not (type(value) is int and 0 <= value <= MAX_STOCK):
        return f"a whole number from 0 to {MAX_STOCK}"
    if name == "currency" and not (isinstance(value, str) and re.fullmatch(CURRENCY, value)):
        return "three capital letters (ISO 4217)"
    if name == "accessories":
        fits = isinstance(value, list) and len(value) <= MAX_ACCESSORIES and all(map(is_id, value))
        return "" if fits else f"a list of at most {MAX_ACCESSORIES} item ids"
    if name == "tags":
        fits = (
            isinstance(value, list)
            and len(value) <= MAX_TAGS
            and all(_is_text(one, MAX_TAG) for one in value)
        )
        return "" if fits else f"a list of at most {MAX_TAGS} {TAG}"
    if name == "available_from" and not (
        isinstance(value, datetime) and value.tzinfo is not None and EARLIEST <= value < LAST
    ):
        return f"an instant with a time zone, from {EARLIEST.isoformat()} to {LAST.isoformat()}"
    return ""


def _is_text(value: object, most: int) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= most and _CONTROL.search(value) is None
