"""Ids of shoppers and visits -> pseudonyms: no store tells who came, the same shopper is the same everywhere.

    U123  ->  p- and 32 hex digits: 12 bytes of HMAC-SHA256, 4 bytes that prove whose key it was

A pseudonym of the same key stays as it is, so that what was read from a store can be asked for again: by
`endcap replay`, which posts data/raw, and by an operator. The proof keeps an id that only looks like one from
passing unchanged. Region and key are of the shop: region `eu` gives `eu-` and the digits.
"""

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

BODY, PROOF = 12, 4  # bytes; 32 hex digits together
PREFIX = "p"  # of a shop without a region
CACHED = 32_768  # shoppers and visits, 300 bytes each
IDS = ("user_id", "session_id")  # of an event or a request


class Known(NamedTuple):
    """What the stores call a shopper or a visit, and whether it is to be left out of them."""

    name: str
    erased: bool


class Persons:
    """Pseudonyms by `key`, and who is erased; without a key everybody is called by the own id.

    `hides` False: ids stay, and only the erased are told apart. `erased` holds tombstones; replace it as it
    grows.
    """

    def __init__(
        self,
        key: bytes | None = None,
        region: str = "",
        hides: bool = True,
        erased: Collection[str] = (),
    ) -> None:
        self._key, self._hides = key, hides and key is not None
        self._proving = hashlib.sha256(key or b"").digest()
        self._prefix = region or PREFIX
        self._shape = re.compile(rf"{self._prefix}-[0-9a-f]{{32}}")
        self._inside = re.compile(rf"{self._prefix}-[0-9a-f]{{32}}".encode())
        self._erased = frozenset(erased)
        self.known = lru_cache(CACHED)(self._known)

    @property
    def print(self) -> str:
        """Names the key and tells nothing of it; `plain` where ids stay as they are."""
        return self._hash(b"print", b"", 8).hex() if self._hides else "plain"

    @property
    def erased(self) -> frozenset[str]:
        """Tombstones of those who are left out."""
        return self._erased

    @erased.setter
    def erased(self, tombstones: Collection[str]) -> None:
        if self._erased != (found := frozenset(tombstones)):
            self._erased = found
            self.known.cache_clear()

    def of(self, raw: str) -> str:
        """What the stores call `raw`.

        >>> shop = Persons(b"a key")
        >>> shop.of("U123")
        'p-217a4c7ea9e4bf5859d9e1fa58984bdb'
        >>> shop.of(shop.of("U123")) == shop.of("U123")
        True
        """
        return self.known(raw).name

    def _known(self, raw: str) -> Known:
        name = raw if not self._hides or self.is_ours(raw) else self._named(raw)
        return Known(name, bool(self._erased) and self.tombstone(name) in self._erased)

    def is_ours(self, text: str) -> bool:
        """Whether `text` is a pseudonym that this key made."""
        if not self._shape.fullmatch(text):
            return False
        found = bytes.fromhex(text[-32:])
        return hmac.compare_digest(self._proof(found[:BODY]), found[BODY:])

    def tokens(self, text: bytes) -> set[str]:
        """What has the shape of this shop's pseudonyms in a text or in any bytes.

        The pattern begins with plain letters: a search goes through gigabytes a second, by a class or a
        look-behind at its head through thirty megabytes.
        """
        return {found.decode() for found in self._inside.findall(text)}

    def tombstone(self, name: str) -> str:
        """32 hex digits that stand for an erased pseudonym: nobody is found by them without the key."""
        return self._hash(b"erased", name.encode("utf-8", "surrogatepass"), 16).hex()

    def enter(self, event: MutableMapping[str, Any]) -> bool:
        """Put pseudonyms in the place of the event's ids; False where it is of somebody erased.

        A visit that is erased drops its anonymous events. Whoever else is known in it stays. An `event_id`
        that holds an id becomes a pseudonym as well.
        """
        user, session = event.get("user_id"), event.get("session_id")
        if self._key is None:
            return True
        named = event.get("event_id")
        if named and self._hides and ((user and user in named) or (session and session in named)):
            event["event_id"] = self.known(named).name
        who = self.known(user) if user else None
        visit = self.known(session) if session else None
        if who:
            event["user_id"] = who.name
        if visit:
            event["session_id"] = visit.name
        return not (who or visit or Known("", False)).erased

    def left_out(self, event: Mapping[str, Any]) -> bool:
        """Whether an event that has entered is of somebody who was erased since."""
        owner = event.get("user_id") or event.get("session_id")
        return bool(owner and self._erased and self.known(owner).erased)

    def asking(self, user: str | None, session: str | None) -> tuple[str | None, str | None]:
        """(user, session) of a request, as the stores call them; whoever is erased is nobody here."""
        if self._key is None:
            return user, session
        who, visit = self.known(user) if user else None, self.known(session) if session else None
        if (who or visit or Known("", False)).erased:
            return None, None
        return who and who.name, visit.name if visit and not visit.erased else None

    def table(self, events: pa.Table) -> pa.Table:
        """As `enter`, of a table of events: without the rows of the erased."""
        if self._key is None:
            return events
        found, gone = {}, {}
        for name in IDS:
            values = pc.dictionary_encode(events[name].combine_chunks())
            known = [self._known(raw) for raw in values.dictionary.to_pylist()]
            found[name] = pa.array([one.name for one in known], pa.string()).take(values.indices)
            gone[name] = pa.array([one.erased for one in known], pa.bool_()).take(values.indices)
        of_ids = [pc.and_(events[name].is_valid(), _holds(events["event_id"], events[name])) for name in IDS]
        held = pc.or_kleene(*(pc.fill_null(one, False) for one in of_ids))
        if self._hides and pc.any(held).as_py():
            names = [
                self._known(raw).name if hides else raw
                for raw, hides in zip(events["event_id"].to_pylist(), held.to_pylist(), strict=True)
            ]
            events = _with(events, "event_id", pa.array(names, pa.string()))
        for name in IDS:
            events = _with(events, name, found[name])
        leaves = pc.fill_null(pc.coalesce(gone["user_id"], gone["session_id"]), False)
        return events.filter(pc.invert(leaves)) if self._erased else events

    def refused(self, rows: pa.Table) -> pa.Table:
        """Refused rows (columns field, value): an id in `value`, wrong as it is, becomes its pseudonym."""
        if not self._hides:
            return rows
        pairs = zip(rows["field"].to_pylist(), rows["value"].to_pylist(), strict=True)
        values = [self.of(value) if field in IDS and value else value for field, value in pairs]
        return _with(rows, "value", pa.array(values, pa.string()))

    def _named(self, raw: str) -> str:
        assert self._key is not None
        body = hmac.digest(self._key, raw.encode("utf-8", "surrogatepass"), "sha256")[:BODY]
        return f"{self._prefix}-{(body + self._proof(body)).hex()}"

    def _proof(self, body: bytes) -> bytes:
        return self._hash(b"proof", self._prefix.encode() + body, PROOF)

    def _hash(self, what: bytes, text: bytes, size: int) -> bytes:
        return hashlib.blake2b(text, digest_size=size, key=self._proving, person=what).digest()


def _holds(texts: pa.ChunkedArray, parts: pa.ChunkedArray) -> pa.Array:
    """Row by row: does the text hold the part?"""
    pairs = zip(texts.to_pylist(), parts.to_pylist(), strict=True)
    return pa.array([part is not None and part in text for text, part in pairs], pa.bool_())


def _with(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(at), values)
