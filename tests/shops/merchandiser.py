"""A merchandiser who never rests: sets of rules that must not be mixed, published and taken back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from redis import Redis
from redis.exceptions import RedisError

from serving.release.state import Act
from serving.rules import published
from serving.rules.document import parse

PUBLISH_S = 1.5
PINNED, BARRED = 15, 20  # of the items; those from BARRED on are pinned by nobody


def rules_of(number: int) -> bytes:
    """Set `number`: two pins and a block, which no answer may have from different sets."""
    first, second = (f"item-{(number + step) % PINNED}" for step in (0, 4))
    pins = [{"pin": {"items": [item], "slots": [slot]}} for slot, item in enumerate((first, second))]
    block = {"block": {"where": {"item_id": [barred(number)]}}}
    told = [{"id": f"s{number}-{at}", "do": do} for at, do in enumerate((*pins, block))]
    return orjson.dumps({"rules": told})


def barred(number: int) -> str:
    return f"item-{BARRED + number % 9}"


def mixed(slots: Iterable[dict[str, Any]]) -> str | None:
    """What two sets of rules did to these slots, of one list or of a page; None where none or one did."""
    sets = {int(slot["rule"][1:].partition("-")[0]) for slot in slots if slot.get("rule")}
    if len(sets) > 1:
        return f"rules of the sets {sorted(sets)}"
    shown = {slot["item_id"] for slot in slots}
    return next((f"set {one} bars {barred(one)}, shown" for one in sets if barred(one) in shown), None)


@dataclass
class Merchandiser:
    """Publishes one set after the other, and takes back what it can."""

    redis: Callable[[], Redis]
    changes: int = 0
    refused: int = 0

    def run(self, enough: threading.Event) -> None:
        number = 0
        while not enough.wait(PUBLISH_S):
            number += 1
            act = Act("merchandiser", f"set {number}", time.time_ns() // 1000)
            try:
                with self.redis() as there:
                    seen = published.read(there)
                    if number % 4 == 0 and seen.version > 1:
                        published.revert(there, act, seen)
                    else:
                        published.publish(there, parse(rules_of(number)), act, seen)
                    self.changes += 1
            except (RedisError, OSError, published.RulesConflict, published.NoSuchVersion):
                self.refused += 1


def assert_followed(
    redis: Redis, audit: list[dict[str, Any]], ask: Callable[[], list[dict[str, Any]]]
) -> None:
    """Every version stands in the audit once, and what holds is what answers show."""
    held = published.read(redis)
    told = [entry["numbers"]["rules_version"] for entry in audit if entry["what"].endswith("_rules")]
    assert told == list(range(held.version, 0, -1))
    (*_, last) = held.document.partition(b'"id"')[2].split(b'"', 2)[1].split(b"-")[:1]
    for _ in range(20):
        assert {slot["rule"].partition("-")[0] for slot in ask() if slot.get("rule")} == {last.decode()}
