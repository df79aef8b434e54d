"""Signed request ids: what list was served, to whom and until when, so that nobody can make one up.

    byte  0        day of the key, modulo 256
          1        number of the arm * 16 + number of the surface
          2..5     expiry, seconds since 1970
          6..11    random
          12..17   fingerprints of the session and of the user, 3 bytes each; zeros for nobody
          18..     fingerprint of the item of each slot, 2 bytes; none in a list of more than 83
          last 8   BLAKE2b of all that, keyed

written in base64 for addresses: 67 characters for a list of 12. Each day has a key of its own, made at random
and held in Redis, where all workers find it; a signature is judged by that of its day. Whoever has none of
them cannot make a fingerprint either: they are keyed, and of this one list.
"""

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis import Redis

from feature_repo.clock import DAY_US, SECOND_US
from feature_repo.events import SURFACES
from serving.release.router import SHOWN

KEY = "endcap:signing:"  # + day since 1970 -> 32 random bytes, as hex
HEAD, MAC = 18, 8
LONGEST = 256  # characters of an id
WIDE = 2  # bytes of an item's fingerprint
MOST_SLOTS = (LONGEST * 3 // 4 - HEAD - MAC) // WIDE
UNSIGNED, FORGED, LATE, FOREIGN, NOT_SHOWN = "unsigned", "forged", "late", "foreign", "not_shown"


@dataclass(frozen=True)
class Signing:
    """`access.signing` of params.yaml: how long a list may be clicked on."""

    lives_s: int
    mail_lives_s: int  # of surfaces that are sent

    def lives_us(self, surface: str) -> int:
        """Of a list of this surface."""
        return (self.mail_lives_s if surface.startswith("email_") else self.lives_s) * SECOND_US


class Ticket(NamedTuple):
    """What a request id says of its list; `expires` in us.

    `slot` of the item that was asked for; None in a list that was too long to be written down.
    """

    arm: str
    surface: str
    expires: int
    slot: int | None


class Signatures:
    """Signs the lists of a worker and judges what comes back. Without `follow` the keys are its own alone."""

    def __init__(self, rules: Signing) -> None:
        self._rules = rules
        self._own = secrets.token_bytes(32)
        self._keys: Mapping[int, bytes] = {}

    def follow(self, redis: Redis, now: int) -> None:
        """Take the keys of all days that still count from Redis, and make today's and tomorrow's there."""
        today = now // DAY_US
        oldest = today - max(self._rules.lives_s, self._rules.mail_lives_s) * SECOND_US // DAY_US - 1
        days = range(oldest, today + 2)
        with redis.pipeline(transaction=False) as pipe:
            for day in (today, today + 1):
                kept_s = (day + 2 - oldest) * DAY_US // SECOND_US
                pipe.set(f"{KEY}{day}", secrets.token_hex(32), nx=True, ex=kept_s)
            pipe.mget([f"{KEY}{day}" for day in days])
            held: Any = pipe.execute()[-1]
        self._keys = {day: bytes.fromhex(key.decode()) for day, key in zip(days, held, strict=True) if key}

    def sign(
        self,
        now: int,
        arm: str,
        surface: str,
        session_id: str | None,
        user_id: str | None,
        items: Sequence[str],
    ) -> str:
        """The request id of a list that is served at `now` (us)."""
        day, expires = now // DAY_US, (now + self._rules.lives_us(surface)) // SECOND_US
        key, salt = self._keys.get(day, self._own), os.urandom(6)
        kind = SHOWN.index(arm) << 4 | SURFACES.index(surface)
        who = _print(session_id, key, salt, 3) + _print(user_id, key, salt, 3)
        listed = items if len(items) <= MOST_SLOTS else ()
        shown = b"".join([_print(item, key, salt, WIDE) for item in listed])
        said = bytes((day & 0xFF, kind)) + expires.to_bytes(4) + salt + who + shown
        return _written(said + _mac(said, key))

    def judge(self, event: Mapping[str, Any], now: int) -> Ticket | str:
        """What the event's request id says of its list, or why it says nothing of it, at `now` (us)."""
        said = _unpacked(event["request_id"])
        if said is None:
            return UNSIGNED
        newest = now // DAY_US + 1  # another worker's clock may be ahead
        day = newest - (newest - said[0] & 0xFF)
        key = self._keys.get(day, self._own)
        body = said[:-MAC]
        if not secrets.compare_digest(_mac(body, key), said[-MAC:]):
            return FORGED
        expires, salt = int.from_bytes(body[2:6]) * SECOND_US, body[6:12]
        if now >= expires:
            return LATE
        session, user = body[12:15], body[15:18]
        nobody = bytes(3)
        if (session, user) != (nobody, nobody) and not any(
            mine != nobody and mine == _print(name, key, salt, 3)
            for mine, name in ((session, event["session_id"]), (user, event.get("user_id")))
        ):
            return FOREIGN
        ticket = Ticket(SHOWN[body[1] >> 4], SURFACES[body[1] & 15], expires, None)
        if len(body) == HEAD:
            return ticket
        mine = _print(event.get("item_id"), key, salt, WIDE)
        places = range(HEAD, len(body), WIDE)
        slot = next((at for at, place in enumerate(places) if body[place : place + WIDE] == mine), None)
        return NOT_SHOWN if slot is None else ticket._replace(slot=slot)


def _print(name: str | None, key: bytes, salt: bytes, wide: int) -> bytes:
    """`wide` bytes, keyed and of this list; zeros for None."""
    if name is None:
        return bytes(wide)
    return hashlib.blake2b(name.encode(), digest_size=wide, key=key, salt=salt).digest()


def _mac(said: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(said, digest_size=MAC, key=key, person=b"request id").digest()


def _written(said: bytes) -> str:
    return base64.urlsafe_b64encode(said).rstrip(b"=").decode()


def looks_signed(text: str) -> bool:
    """Whether it has the form of a request id of ours; only `judge` says whether it is one."""
    said = _unpacked(text)
    if said is None or (len(said) - HEAD - MAC) % WIDE:
        return False
    return said[1] >> 4 < len(SHOWN) and said[1] & 15 < len(SURFACES)


def _unpacked(request_id: str) -> bytes | None:
    """The bytes of an id of this form; None for another."""
    if not len(request_id) * 3 // 4 >= HEAD + MAC or len(request_id) > LONGEST or not request_id.isascii():
        return None
    try:
        said = base64.b64decode(request_id + "=" * (-len(request_id) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    # Written in one way alone: else the same list could be clicked on under four names.
    return said if len(said) >= HEAD + MAC and _written(said) == request_id else None
