"""Which events count for popularity, click rates and a canary; the others are stored all the same.

An impression or a click that names a list counts if the list was served (signatures.py), to this shopper,
with the item in it, not too long ago, and for the first time. Whatever is counted is counted at most as often
as people do it: per visit and hour, and per address. What is decided here is written on the event
(`uncounted`: the reason) and goes through the log with it: stream, backfill and guard see the same.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from feature_repo.clock import SECOND_US
from feature_repo.events import PRODUCT_TYPES, UNCOUNTED, identity
from serving import prometheus
from serving.access.signatures import FOREIGN, FORGED, LATE, NOT_SHOWN, UNSIGNED, Signatures
from serving.access.tolls import Toll

SCRIPT = Path(__file__).with_name("counted.lua").read_text().encode()
LISTS, VISITS, CLIENTS = "endcap:counted:list:", "endcap:counted:visit:", "endcap:counted:client:"
SHOWN = ("impression", "click")  # what happens to a slot of a list
REPEATED, TOO_FAST = "repeated", "faster_than_people"
REASONS = (None, REPEATED, TOO_FAST)  # by the digit of counted.lua
WHY_NOT = (UNSIGNED, FORGED, LATE, FOREIGN, NOT_SHOWN, REPEATED, TOO_FAST)
HOUR_S = 3_600
Ask = Callable[[Sequence[bytes]], Awaitable[list[Any]]]  # as serving.live.wire.Wire.ask
CHUNK = 50  # events per script call: Redis answers nobody else meanwhile
KINDS = dict(zip((*SHOWN, *PRODUCT_TYPES), "icvap", strict=True))


@dataclass(frozen=True)
class Counting:
    """`access.counting` of params.yaml. What one visit may do within an hour, and one address to one item."""

    impressions_of_item: int
    deeds_of_item: int  # clicks, views, carts, purchases: of each kind so many
    clicks: int
    address_impressions_of_item: int
    address_deeds_of_item: int
    address_items: int


class Source(NamedTuple):
    """Where events come from. `address` None: not known, or that of the shop's own server."""

    toll: Toll
    address: str | None
    owns: Callable[[str | None], bool] = lambda user: True  # whether it may tell of this shopper


class Verdicts:
    """Decides which events of a POST count."""

    def __init__(self, ask: Ask, signatures: Signatures, rules: Counting) -> None:
        self._ask, self._signatures, self._rules = ask, signatures, rules

    async def stamp(self, events: Sequence[dict[str, Any]], source: Source, now: int) -> list[str | None]:
        """Write `uncounted` on the events that count for nothing at `now` (us); the reason of each, or None.

        Charges the source first, without events as well: RequestError 429 where it has told too much. Without
        Redis nothing is a repetition and nobody is too fast.
        """
        reasons: list[str | None] = [None] * len(events)
        asked: list[tuple[int, list[bytes], list[bytes]]] = []
        hour = b"%d:" % (now // SECOND_US // HOUR_S)
        for at, event in enumerate(events):
            if event["type"] not in KINDS:
                continue
            slot, list_key, lives_s = b"", b"", b"0"
            if event["type"] in SHOWN and event.get("request_id") is not None:
                ticket = self._signatures.judge(event, now)
                if isinstance(ticket, str):
                    reasons[at] = ticket
                    continue
                slot = b"" if ticket.slot is None else b"%d" % ticket.slot
                list_key = LISTS.encode() + _short(event["request_id"])
                lives_s = b"%d" % max(1, (ticket.expires - now) // SECOND_US)
            asked.append((at, *self._of(event, source.address, hour, slot, list_key, lives_s)))
        commands = [source.toll.command]
        chunks = [asked[start : start + CHUNK] for start in range(0, len(asked), CHUNK)]
        commands += [_packed(chunk, self._rules.address_items) for chunk in chunks]
        try:
            charged, *told = await self._ask(commands)
        except (RedisError, OSError, TimeoutError):
            charged, told = None, []
        source.toll.settle(charged)
        for chunk, digits in zip(chunks, told, strict=False):
            for (at, _, _), digit in zip(chunk, digits, strict=True):
                reasons[at] = REASONS[digit - ord("0")]
        for event, reason in zip(events, reasons, strict=True):
            if reason is not None:
                event[UNCOUNTED] = reason
                prometheus.UNCOUNTED.labels(reason).inc()
        return reasons

    def _of(
        self,
        event: Mapping[str, Any],
        address: str | None,
        hour: bytes,
        slot: bytes,
        list_key: bytes,
        lives_s: bytes,
    ) -> tuple[list[bytes], list[bytes]]:
        """Keys and arguments of counted.lua."""
        rules, kind = self._rules, KINDS[event["type"]].encode()
        seen = event["type"] == "impression"
        keys = [list_key, VISITS.encode() + hour + _short(event["session_id"])]
        keys.append(CLIENTS.encode() + hour + _short(address) if address else b"")
        bounds = (
            rules.impressions_of_item if seen else rules.deeds_of_item,
            rules.clicks if event["type"] == "click" else 0,
            rules.address_impressions_of_item if seen else rules.address_deeds_of_item,
        )
        item = _short(event["item_id"], 6)
        return keys, [
            kind,
            item,
            slot or item,
            identity(event)[:6],
            lives_s,
            *(b"%d" % one for one in bounds),
        ]


def _packed(asked: Sequence[tuple[int, list[bytes], list[bytes]]], widest: int) -> bytes:
    """EVAL of counted.lua as bytes on the wire."""
    keys = [key for _, keys, _ in asked for key in keys]
    words = [b"EVAL", SCRIPT, b"%d" % len(keys), *keys, b"%d" % (2 * HOUR_S), b"%d" % widest]
    words += [word for _, _, arguments in asked for word in arguments]
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%s\r\n" % (len(word), word) for word in words])


def _short(name: str, size: int = 10) -> bytes:
    """Names from outside reach no key."""
    return hashlib.blake2b(name.encode(), digest_size=size).digest()
