"""Lists before and after a draft side by side, in lines for a person and as JSON."""

import textwrap
from collections.abc import Iterator
from typing import Any

from feature_repo.clock import instant
from feature_repo.terminal import PIPE
from monitoring.fitting.preview import Fitted
from monitoring.fitting.showroom import Showroom
from serving.types import Slot

WIDTH = PIPE
TITLE, PRICE = 40, 9  # columns


def lines(room: Showroom, found: Fitted) -> Iterator[str]:
    """With titles and prices, WIDTH columns at most."""
    before, after = found.before, found.after
    when = f", as of {instant(found.at_us):%Y-%m-%d %H:%M} UTC" if found.later else ""
    told = f"{found.words}{when}: {found.changed} of {max(len(before), len(after))} slots change"
    yield from textwrap.wrap(told, WIDTH)
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


def as_json(found: Fitted) -> dict[str, Any]:
    """For a machine."""
    told: dict[str, Any] = {"list": found.words, "rules": found.rules, "at_us": found.at_us}
    return told | {"before": _told(found.before), "after": _told(found.after)}


def _told(slots: tuple[Slot, ...]) -> list[dict[str, Any]]:
    return [{"item_id": slot.item_id, "source": slot.source, "rule": slot.rule} for slot in slots]
