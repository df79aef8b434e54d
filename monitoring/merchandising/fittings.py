"""The fitting room that stands open in the console: the champion in memory, with products as they are now."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from feature_repo.persons.privacy import persons
from monitoring.fitting import preview
from monitoring.fitting.showroom import Showroom, lately, opened
from monitoring.pages.desk import Desk
from serving.live.products import products
from serving.release import state, workers
from serving.rules import lint, published
from serving.rules.compiled import Compiled
from serving.rules.document import Document, parse
from serving.rules.faults import Fault, RulesError
from serving.types import Context, Request, Slot

SHOWN = ("title", "price", "brand", "category_path", "image_path")
FACE = ("image_path", "title")
NEAR = 20  # shoppers of lately who are offered for a preview


class Fittings:
    """One at a time may use the room; it is opened at the first use, and anew with another champion."""

    def __init__(self, desk: Desk, make: Callable[[Any], Showroom] = opened) -> None:
        self._desk, self._make = desk, make
        self._turn = threading.Lock()
        self._room: Showroom | None = None
        self._digest = ""

    @contextmanager
    def room(self) -> Iterator[Showroom]:
        """With prices and stock of now. Raises RolloutError before the first release."""
        with self._turn:
            digest = state.present(self._desk.redis).champion.digest
            if self._room is None or digest != self._digest:
                self._room, self._digest = self._make(self._desk.redis), digest
            self._room.features.refresh()
            yield self._room

    def face(self, item: str) -> tuple[str | None, str | None]:
        """(path of the picture, title) of a product; None for what the catalogue does not say."""
        room = self._room
        if room is None:
            with self.room() as room:
                pass
        matrix = room.matrix
        row = matrix.row.get(item)
        columns = [matrix.shown.get(name) for name in FACE]
        path, title = (None if row is None or column is None else column[row] for column in columns)
        return (None if path is None else str(path)), (None if title is None else str(title))


def fittings(desk: Desk) -> Fittings:
    """Those of this desk."""
    return desk.once(Fittings, lambda: Fittings(desk))


def read(text: str) -> tuple[Document | None, list[Fault]]:
    """A draft as it was typed; None with its faults where it cannot be read."""
    try:
        return parse(text.encode("utf-8", "surrogatepass")), []
    except RulesError as error:
        return None, list(error.faults)


def checked(desk: Desk, text: str) -> tuple[Document | None, list[Fault]]:
    """A draft in itself and against the catalogue: every fault, what is refused first."""
    draft, faults = read(text)
    if draft is not None:
        with fittings(desk).room() as room:
            faults = lint.faults(draft, room.matrix, workers.now(desk.redis))
    return draft, faults


def fitted(desk: Desk, draft: Document, request: Request) -> tuple[preview.Fitted, list[dict[str, Any]]]:
    """One list before and after, and for each slot what a person wants to see of both products.

    A campaign of next week is shown as it will be then.
    """
    now = workers.now(desk.redis)
    with fittings(desk).room() as room:
        held, _ = published.documents(published.read(desk.redis))
        old, new = Compiled(held, room.matrix, now), Compiled(draft, room.matrix, now)
        at = preview.moment(draft, new, request, now)
        found = preview.one(room, request.surface, request, at, old, new)._replace(later=at > now)
        before, after = _seen(room, found.before), _seen(room, found.after)
    stood = {slot["item_id"]: slot["slot"] for slot in before}
    for slot in after:
        was = stood.get(slot["item_id"])
        slot["was"] = "new" if was is None else "" if was == slot["slot"] else f"from {was + 1}"
    gone = {slot["item_id"] for slot in after}
    for slot in before:
        slot["was"] = "" if slot["item_id"] in gone else "leaves"
    rows = [
        {"before": before[at] if at < len(before) else None, "after": after[at] if at < len(after) else None}
        for at in range(max(len(before), len(after)))
    ]
    return found, rows


def somebody(desk: Desk, surface: str) -> list[dict[str, Any]]:
    """Who was shown a list there lately: user_id or session_id, once each."""
    found: dict[str, dict[str, Any]] = {}
    for shown in lately(desk.redis, surface):
        name = shown["user_id"] or shown["session_id"]
        if name:
            found.setdefault(name, shown)
        if len(found) >= NEAR:
            break
    return list(found.values())


def asked_for(form: Any) -> Request:
    """The question of a preview, as its form has it, of whom the stores know by that id."""
    page, items = form.get("category") or None, tuple(filter(None, [form.get("item_id", "").strip()]))
    context = Context(device=form.get("device") or None, country=form.get("country") or None, category=page)
    typed = (form.get(name, "").strip() or None for name in ("user_id", "session_id"))
    user, session = persons().asking(*typed)
    return Request(form.get("surface") or "homepage_hero", user, session, items=items, context=context)


def now_us() -> int:
    """The wall clock, for the audit."""
    return time.time_ns() // 1000


def _seen(room: Showroom, slots: tuple[Slot, ...]) -> list[dict[str, Any]]:
    known = products(slots, SHOWN, room.matrix)
    return [
        {"item_id": slot.item_id, "slot": slot.slot, "rule": slot.rule, **told}
        | {"title": told["title"] or room.titles.get(slot.item_id)}
        for slot, told in zip(slots, known, strict=True)
    ]
