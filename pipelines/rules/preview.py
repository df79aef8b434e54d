"""Lists before and after a draft, side by side, with titles and prices: what a merchandiser would see."""

import textwrap
from collections.abc import Iterator
from typing import Any

import orjson
from redis import Redis

from feature_repo.persons.privacy import persons
from feature_repo.terminal import PIPE
from pipelines.rules.showroom import Showroom, lately
from serving.rules.compiled import Compiled
from serving.rules.document import Document
from serving.rules.lint import audiences, moments
from serving.types import Request, Slot

WIDTH = PIPE
TITLE, PRICE = 40, 9  # columns


def requests(
    redis: Redis, draft: Document, surface: str | None, user: str | None, session: str | None
) -> Iterator[tuple[str, Request]]:
    """A question per kind of list that the draft tells apart, asked by who was there lately."""
    user, session = (one and persons().of(one) for one in (user, session))
    kinds = list(audiences(draft)) or [("homepage_hero, anonymous", Request("homepage_hero"))]
    for words, request in kinds:
        if surface not in (None, request.surface):
            continue
        who = next(
            (s for s in lately(redis, request.surface) if bool(s["user_id"]) == bool(request.user_id)), {}
        )
        user_id = (user or who.get("user_id")) if request.user_id else None
        session_id = session or who.get("session_id")
        yield words, Request(request.surface, user_id or request.user_id, session_id, context=request.context)


def show(
    redis: Redis,
    room: Showroom,
    before: Document,
    draft: Document,
    now: int,
    asked: Iterator[tuple[str, Request]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Per list: the lines for a person, and the same for a machine. Of lists of one surface
    under the same rules one is shown."""
    old, new = Compiled(before, room.matrix, now), Compiled(draft, room.matrix, now)
    told_of: set[tuple[str, tuple[str, ...]]] = set()
    for words, request in asked:
        at = next((m for m in reversed(moments(draft, now)) if new.steering(request, m).rules), now)
        kind = request.surface, new.steering(request, at).rules
        if kind in told_of:
            continue
        told_of.add(kind)
        held, drafted = old.steering(request, at), new.steering(request, at)
        first, then = room.lists(request, at, held, drafted)
        told = {"list": words, "rules": drafted.rules, "at_us": at}
        told |= {"before": _told(first.slots), "after": _told(then.slots)}
        yield "\n".join(_lines(room, words, first.slots, then.slots)), told


def _lines(room: Showroom, words: str, before: tuple[Slot, ...], after: tuple[Slot, ...]) -> Iterator[str]:
    moved = sum(a.item_id != b.item_id for a, b in zip(before, after, strict=False))
    moved += abs(len(before) - len(after))
    yield from textwrap.wrap(f"{words}: {moved} of {max(len(before), len(after))} slots change", WIDTH)
    stood = {slot.item_id: slot.slot for slot in before}
    yield "  before"
    yield from (_row(room, slot, "") for slot in before)
    yield "  after (slot before)"
    for slot in after:
        was = stood.get(slot.item_id)
        yield _row(room, slot, "new" if was is None else f"({was})" if was != slot.slot else "")
    yield ""


def _row(room: Showroom, slot: Slot, was: str) -> str:
    """Slot, title, price, the slot before, the rule: WIDTH columns at most."""
    title = "".join(c if c.isprintable() else " " for c in room.titles.get(slot.item_id) or slot.item_id)
    title = title if len(title) <= TITLE else f"{title[: TITLE - 3]}..."
    price = float(room.matrix.price[room.matrix.row[slot.item_id]])
    told = "" if price != price else f"{price:,.2f}"
    return f"{slot.slot:>3} {title:{TITLE}} {told:>{PRICE}} {was:<4} {slot.rule or ''}".rstrip()[:WIDTH]


def _told(slots: tuple[Slot, ...]) -> list[dict[str, Any]]:
    return [{"item_id": slot.item_id, "source": slot.source, "rule": slot.rule} for slot in slots]


def as_json(told: Any) -> str:
    return orjson.dumps(told).decode()
