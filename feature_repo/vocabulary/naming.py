"""Texts that say nothing, and ids made of what an event tells."""

from hashlib import blake2b
from typing import Any

from feature_repo.events import is_id

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
