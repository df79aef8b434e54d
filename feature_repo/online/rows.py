"""One view's rows as Feast lays them out in Redis: encode, decode, write, read many in one round trip.

    key    serialised entity key + project          one hash per entity, shared by its views
    field  murmur3("<view>:<column>")               serialised Value
    field  "_ts:<view>"                             serialised Timestamp of the row

Feast's own client answers one visitor in 0.4 ms, drops rows that are not newer than the stored one in
silence, and cannot write a row in the same transaction as anything else. Keys and values are those of Feast
(encoding.py), so the stock `get_online_features` reads what is written here (a test compares them).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from feature_repo.clock import DAY_US
from feature_repo.errors import FeatureError
from feature_repo.folds.fold import Fold
from feature_repo.online.encoding import (
    FIELDS,
    LISTS,
    PROJECT,
    Value,
    entity_key,
    entity_of,
    field_of,
    key_prefix,
)


class OnlineView:
    """Codec of one view. A row is a dict column -> python value, as the fold makes it."""

    def __init__(self, declared: Fold) -> None:
        self.declared = declared
        self._columns = [(c.name, FIELDS[c.dtype][0], LISTS.get(c.dtype)) for c in declared.columns]
        self.fields = [field_of(declared.name, c.name) for c in declared.columns]
        self.fields.append(f"_ts:{declared.name}".encode())
        words = b"".join(b"$%d\r\n%s\r\n" % (len(field), field) for field in self.fields)
        self._hmget = b"*%d\r\n$5\r\nHMGET\r\n$%%d\r\n%%s\r\n" % (2 + len(self.fields)), words

    def key(self, entity: str) -> bytes:
        """Redis key of the entity's hash."""
        return entity_key(self.declared.key, entity) + PROJECT

    def entity(self, key: bytes) -> str:
        """Whose hash it is: `key` read back."""
        return entity_of(self.declared.key, key[: -len(PROJECT)])

    def hmget(self, entity: str) -> bytes:
        """HMGET of the entity's row as bytes on the wire; a client takes ten times as long to pack it."""
        key = self.key(entity)
        head, words = self._hmget
        return head % (len(key), key) + words

    def pattern(self) -> bytes:
        """SCAN pattern of every entity's hash."""
        return key_prefix(self.declared.key) + b"*" + PROJECT

    def encode(self, row: Mapping[str, Any], ts: int) -> dict[bytes, bytes]:
        """Fields of the hash for a row that stands at `ts` (us). FeatureError names a value of wrong type."""
        encoded = []
        for name, field, kind in self._columns:
            value = row[name]
            try:
                held = {} if value is None else {field: kind(val=value) if kind else value}
                encoded.append(Value(**held).SerializeToString())
            except (TypeError, ValueError) as error:
                raise FeatureError(f"{self.declared.name}.{name}: {value!r} does not fit {field}") from error
        instant = Timestamp(seconds=ts // 1_000_000, nanos=ts % 1_000_000 * 1_000)
        encoded.append(instant.SerializeToString())
        return dict(zip(self.fields, encoded, strict=True))

    def decode(self, values: Sequence[bytes | None]) -> tuple[int, dict[str, Any]] | None:
        """(ts us, row) from the reply to HMGET key *fields; None when the view has no row for this entity."""
        if not (stamp := values[-1]):
            return None
        row: dict[str, Any] = {}
        for (name, field, kind), raw in zip(self._columns, values[:-1], strict=True):
            if raw:
                value = getattr(Value.FromString(raw), field)
                row[name] = value.val[:] if kind else value
            else:
                row[name] = None
        return Timestamp.FromString(stamp).ToMicroseconds(), row

    def fresh(self, values: Sequence[bytes | None], now: int) -> tuple[int, dict[str, Any]] | None:
        """As `decode`, and None where the row is older at `now` (us) than the view allows.

        Feast enforces the ttl of a view offline only; a row of exactly that age is still read, here as there.
        """
        found = self.decode(values)
        limit = self.declared.max_age_days * DAY_US
        return None if found and limit and now - found[0] > limit else found


def read_rows(
    redis: Any, view: OnlineView, entities: Sequence[str]
) -> list[tuple[int, dict[str, Any]] | None]:
    """(ts us, row) or None of each entity, in one round trip of a blocking client."""
    with redis.pipeline(transaction=False) as pipe:
        for entity in entities:
            pipe.hmget(view.key(entity), view.fields)
        return [view.decode(values) for values in pipe.execute()]


def read_texts(redis: Any, view: OnlineView, column: str, entities: Sequence[str]) -> list[str]:
    """One text column alone of each entity, "" where there is none, in one round trip."""
    field = view.fields[[one.name for one in view.declared.columns].index(column)]
    with redis.pipeline(transaction=False) as pipe:
        for entity in entities:
            pipe.hget(view.key(entity), field)
        return [Value.FromString(raw or b"").string_val for raw in pipe.execute()]


def write_newer(
    redis: Any, view: OnlineView, rows: Iterable[tuple[str, int, Mapping[str, Any]]]
) -> list[str]:
    """Write (entity, ts us, row) unless Redis holds a row as new or newer; the entities whose row changed.

    For bulk writers beside a live stream. A view that no event changes has its rows from here alone: there a
    row of the same instant replaces another one, and of an equal row that is said again the stamp moves. Two
    round trips, as Feast's own `online_write_batch`.
    """
    rows, written, alone = list(rows), [], not view.declared.types
    with redis.pipeline(transaction=False) as pipe:
        for entity, _, _ in rows:
            pipe.hmget(view.key(entity), view.fields if alone else view.fields[-1:])
        for (entity, ts, row), held in zip(rows, pipe.execute(), strict=True):
            stamp = Timestamp.FromString(held[-1]).ToMicroseconds() if held[-1] else -1
            if stamp > ts or (stamp == ts and not alone):
                continue
            fields = view.encode(row, ts)
            if alone and stamp >= 0 and list(fields.values())[:-1] == held[:-1]:
                if stamp < ts:
                    pipe.hset(view.key(entity), view.fields[-1], fields[view.fields[-1]])
                continue
            pipe.hset(view.key(entity), mapping=fields)
            written.append(entity)
        pipe.execute()
    return written
