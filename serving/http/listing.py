"""POST /v1/items: what the shop says of its items, into the log of events, each in the partition of its item.

202 {accepted, rejected: [{index, item_id, field, value, allowed}]}
422 the same, where none was accepted
401 without the catalogue or the secret key, 403 where none is configured
503 with Retry-After, as for events; saying all of it again says the same
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from feature_repo.clock import instant
from feature_repo.errors import EventError, shorten
from feature_repo.eventlog.keys import ITEM_CHANGE
from feature_repo.features.item_check import check_item
from serving import prometheus
from serving.errors import RequestError
from serving.http.ingress import Clock, Ingress, Receipt, named, newest_of, whole_texts
from serving.http.requests import parse_instant, parse_object

PAUSE = 10  # items checked before others have their turn; one may name hundreds of accessories
NAMED = 80  # characters of a field's name that are told


def parse_changes(body: bytes, most: int) -> list[Any]:
    """The list in {"items": [...]}; RequestError for anything else."""
    fields = parse_object(body, halves=True)
    for name in fields:
        if name != "items":
            raise RequestError(name, fields[name], "the field items", next_step="drop it")
    items = fields.get("items")
    if not isinstance(items, list) or not 1 <= len(items) <= most:
        found = f"{len(items)} items" if isinstance(items, list) else items
        raise RequestError("items", found, f"a list of 1 to {most} items")
    return items


def canonical_change(raw: Any, clock: Clock) -> dict[str, Any]:
    """The entry of the log for one item, instants in us; raises EventError.

    `event_ts` is since when it holds, now by default. Absent fields are not in it, null is None.

    >>> canonical_change({"item_id": "mug", "price": 9}, Clock(5, 6, 0, 9))["said"]
    {'price': 9.0, 'deleted': False}
    """
    if not isinstance(raw, dict):
        raise EventError("item", raw, "an object")
    whole_texts(raw)
    said = {name: value for name, value in raw.items() if name != "event_ts"}
    deleted = said.pop("deleted", None)
    if deleted not in (None, False, True) or type(deleted) is int:
        raise EventError("deleted", deleted, "true or false")
    if deleted and len(said) > 1:
        name = next(name for name in said if name != "item_id")
        raise EventError(name, said[name], "nothing beside item_id and event_ts where deleted is true")
    if deleted is None and len(said) == 1:
        raise EventError("item", raw, "at least one field beside item_id")
    for name in ("available_from", "event_ts"):
        try:
            us = parse_instant(name, raw.get(name))
        except RequestError as error:
            raise EventError(name, raw[name], error.allowed) from None
        if name in said and us is not None:
            said[name] = instant(us)
    check_item(said)
    ts = clock.now if us is None else us
    if not clock.earliest <= ts <= clock.latest:
        allowed = f"{instant(clock.earliest).isoformat()} to {instant(clock.latest).isoformat()}"
        raise EventError("event_ts", instant(ts).isoformat(), allowed)
    item = said.pop("item_id")
    return {
        "type": ITEM_CHANGE,
        "item_id": item,
        "event_ts": ts,
        "created_ts": clock.learned,
        "said": {name: _stored(name, value) for name, value in said.items()} | {"deleted": bool(deleted)},
    }


def _stored(name: str, value: Any) -> Any:
    if value is not None and name in ("price", "margin"):
        return float(value)
    return round(value.timestamp() * 1_000_000) if name == "available_from" and value is not None else value


class ItemDoor:
    """The door for changes of the catalogue; serving.access.credentials says whom it is open to."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress

    async def accept(self, raw: Sequence[Any], clock: Clock) -> Receipt:
        """Check each change and write the good ones; errors as Ingress.accept."""
        self._ingress.require_room(prometheus.ITEM_CHANGES, len(raw))
        good: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        for index, item in enumerate(raw):
            if index % PAUSE == 0:  # before the first, too: the body has just been parsed
                await asyncio.sleep(0)
            try:
                good.append(canonical_change(item, clock))
            except EventError as error:
                told = {"field": error.field[:NAMED], "value": shorten(error.value), "allowed": error.allowed}
                rejected.append({"index": index, "item_id": named(item, "item_id"), **told})
        count = prometheus.ITEM_CHANGES
        written = await self._ingress.stored(self._ingress.writer.write_changes, good, count)
        for outcome, many in (("accepted", len(good)), ("rejected", len(rejected))):
            if many:
                count.labels(outcome).inc(many)
        return Receipt(len(good), None, tuple(rejected), newest_of(written))
