"""Values of a payload that somebody else wrote: what can be read is, what cannot is as if it were not there.

A required field that says nothing makes the event one that the check at the door refuses.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from feature_repo.clock import micros
from feature_repo.events import COUNT_FIELDS, MAX_PRICE, SURFACES, is_id
from feature_repo.vocabulary.naming import NOTHING
from serving.access.signatures import looks_signed
from serving.payloads.terms import Terms

UNKNOWN, RETURNED, NOBODY, NO_PRODUCT = "unknown_event", "return", "no_visitor", "no_product"
TOO_MANY = "too_many_products"
MAX_LINES = 500  # products of one event; GA4, which allows most, stops at 200
S, MS, US = 1_000_000, 1_000, 1  # us in a unit of time
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{0,15})?\Z", re.ASCII)
_DIGITS = re.compile(r"-?\d{1,20}\Z", re.ASCII)


class Dropped(Exception):
    """One event of theirs is none of ours; `args[0]` is the reason, in a word."""


@dataclass(frozen=True)
class System:
    """How one system's bodies are read; both functions are pure and take any JSON value.

    `events`: the body's events, in order. `translate`: one of them as canonical events, one per line item,
    whose times may be anything that POST /v1/events takes; raises Dropped. `sent_at`: what the device's clock
    showed when it sent the body, where the system tells it.
    """

    events: Callable[[Any], list[Any]]
    translate: Callable[[Any, Terms], list[dict[str, Any]]]
    sent_at: Callable[[Any], Any] = lambda body: None


def fields(value: Any) -> Mapping[str, Any]:
    """The object, an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """The list, a single object as a list of one; empty for anything else."""
    return value if isinstance(value, list) else [value] if isinstance(value, dict) else []


def lines(value: Any) -> list[Mapping[str, Any]]:
    """The products of an event; raises Dropped for none, and for more than MAX_LINES."""
    found = listed(value)
    if not 1 <= len(found) <= MAX_LINES:
        raise Dropped(TOO_MANY if found else NO_PRODUCT)
    return [fields(one) for one in found]


def text(value: Any) -> str | None:
    """A text or a whole number as text; None where it says nothing.

    >>> text(" a "), text(507), text("(not set)"), text(True)
    ('a', '507', None, None)
    """
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if type(value) is int:
        value = str(value) if abs(value) < 10**40 else ""
    if not isinstance(value, str):
        return None
    value = value.strip()
    return None if value in NOTHING else value


def label(value: Any) -> str | None:
    """A text that an optional field may hold, else None."""
    found = text(value)
    return found if is_id(found) else None


def first(*values: Any) -> str | None:
    """The first that says something, as text."""
    return next((found for value in values if (found := text(value)) is not None), None)


def price(value: Any) -> float | None:
    """A price in whatever currency, None for what is none.

    >>> price("9.99"), price(7), price(-1), price("1,299.00")
    (9.99, 7.0, None, None)
    """
    if isinstance(value, str) and _NUMBER.match(value := value.strip()):
        value = float(value)
    if type(value) not in (int, float) or not 0 <= value <= MAX_PRICE or not math.isfinite(value):
        return None
    return float(value)


def count(name: str, value: Any) -> int | None:
    """A whole number within the limits of the field `name` (quantity, position, slot), else None."""
    found, (low, high) = _whole(value), COUNT_FIELDS[name]
    return found if found is not None and low <= found <= high else None


def moment(value: Any, unit: int = MS) -> Any:
    """us since 1970 from a number of `unit` (also as text) or ISO 8601, UTC where no zone stands there.

    None where nothing is told; what cannot be read comes back as it is, for the check to refuse.

    >>> moment("1599391467000"), moment("2020-09-06T11:24:27Z"), moment(None)
    (1599391467000000, 1599391467000000, None)
    """
    if isinstance(value, str):
        value = value.strip()
        if value in NOTHING:
            return None
        if _DIGITS.match(value):
            value = int(value)
        elif len(value) <= 40:
            try:
                return micros(value)
            except (ValueError, OverflowError):
                return value
    if type(value) in (int, float) and abs(value) < 1e18:
        return round(value * unit)
    return value


def ours(name: str | None) -> str | None:
    """The name of a list where it is a request id; that of somebody else's list is none."""
    return name if name and looks_signed(name) else None


def list_of(*names: Any) -> dict[str, Any]:
    """What the names or ids of a list tell: one of our request ids, one of our surfaces, else its name.

    >>> list_of("pdp_fbt", "Bought together")
    {'request_id': None, 'surface': 'pdp_fbt', 'list_name': 'Bought together'}
    """
    said = [found for name in names if (found := label(name))]
    others = [name for name in said if not looks_signed(name)]
    return {
        "request_id": next((name for name in said if looks_signed(name)), None),
        "surface": next((name for name in others if name in SURFACES), None),
        "list_name": next(iter(reversed(others)), None),
    }


def from_1(positions: list[Any]) -> list[int | None]:
    """List positions of one payload, from 1; they count from 0 where a 0 is among them.

    >>> from_1([0, 1, None]), from_1([3])
    ([1, 2, None], [3])
    """
    whole = [_whole(value) for value in positions]
    begin = int(0 in whole)
    return [None if value is None else count("position", value + begin) for value in whole]


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and _DIGITS.match(value := value.strip()):
        return int(value)
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None
