"""Gorse: feedback and items of its REST API, and the rows of its dumps.

{"FeedbackType": "read", "UserId": "u", "ItemId": "i", "Value": 1.0, "Timestamp": "2026-01-31T12:00:00Z"}
A pair of shopper and item has one feedback of a type: without a time the event's id is that of the pair.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from feature_repo.vocabulary.trackers import GORSE_COLUMNS
from serving.payloads import identity
from serving.payloads.payload import UNKNOWN, Dropped, System, fields, first, listed, moment, price, text
from serving.payloads.terms import Terms


def feedback(body: Any) -> list[Any]:
    return listed(body)


def translate(row: Any, terms: Terms) -> list[dict[str, Any]]:
    told = fields(row)
    kind = terms.words.get((text(told.get("FeedbackType")) or "").lower())
    if kind is None:
        raise Dropped(UNKNOWN)
    ids = identity.visitor(None, told.get("UserId")).ids()
    when, item = first(told.get("Timestamp")), first(told.get("ItemId"))
    return [
        {
            "type": kind,
            **ids,
            "item_id": item,
            "event_ts": moment(when),
            "event_id": identity.of_content("gorse", told.get("FeedbackType"), ids, item, when),
        }
    ]


def named(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a dump, whose cells are texts, by the names and kinds of the API.

    >>> named({"item_id": "i", "categories": "a|b", "time_stamp": "2026-01-31 12:00:00 +0000 UTC"})
    {'ItemId': 'i', 'Categories': ['a', 'b'], 'Timestamp': '2026-01-31 12:00:00'}
    """
    found = {GORSE_COLUMNS.get(name, name): value for name, value in row.items() if value is not None}
    for name, value in found.items():
        if not isinstance(value, str):
            continue
        if name == "Timestamp":  # as Go writes times; its year 1 is none
            found[name] = value.removesuffix(" +0000 UTC") if not value.startswith("0001-") else None
        elif name == "IsHidden":
            found[name] = value.strip().lower() in ("true", "1")
        elif name == "Labels":
            found[name] = _read(value)
        elif name == "Categories":
            steps = _read(value)
            found[name] = steps if isinstance(steps, list) else [step for step in value.split("|") if step]
    return found


def _read(cell: str) -> Any:
    """JSON in a cell; None for anything else."""
    try:
        return orjson.loads(cell)
    except ValueError:
        return None


def item_of(row: Any) -> dict[str, Any] | None:
    """An item as POST /v1/items takes it, None without an id. Fields that are absent stay as they are."""
    told = fields(row)
    name = first(told.get("ItemId"))
    if name is None:
        return None
    labels = fields(told.get("Labels"))
    categories = told.get("Categories")
    steps = filter(None, map(text, categories if isinstance(categories, list) else ()))
    found: dict[str, Any] = {
        "item_id": name,
        "title": first(labels.get("title"), labels.get("name"), told.get("Comment")),
        "category_path": "/".join(steps) or None,
        "brand": first(labels.get("brand")),
        "description": first(labels.get("description")),
        "currency": first(labels.get("currency")),
        "image_path": first(labels.get("image_path"), labels.get("image")),
        "price": price(labels.get("price")),
        "available_from": moment(told.get("Timestamp")),
        "stock": 0 if told.get("IsHidden") is True else None,
    }
    return {field: value for field, value in found.items() if value is not None}


FEEDBACK = System(feedback, translate)
