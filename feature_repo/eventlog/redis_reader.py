"""The log of events in Redis Streams, read by one consumer group per group of folds.

What a group delivers is lost to its next reader, so only the holder of the task's lease may ask: scripts
check that in the same moment. A consumer that slept through its lease can take nothing from its successor.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from redis import Redis

from feature_repo.clock import HOUR_MS
from feature_repo.eventlog.contract import Entry, Holder, Lag, LeaseLostError, Positions
from feature_repo.eventlog.keys import ITEM_CHANGE, StreamParams, order, stream_key, stream_keys
from feature_repo.eventlog.lua import append, lag_arguments, lags, script


class RedisLog:
    """Partitions `endcap:events:<p>`."""

    position = r"\d+-\d+"

    def __init__(self, redis: Redis, params: StreamParams, group: str, holder: Holder) -> None:
        self._redis: Any = redis  # redis-py types every answer as "maybe awaitable"
        self._params, self._group, self._holder = params, group, holder
        self._open, self._read = map(redis.register_script, (script("open"), script("read")))
        self._at: dict[str, str] = {}  # partition's key -> newest position that was read
        self._partitions: dict[bytes, int] = {}

    def check(self) -> None:
        """Partitions are made as they are needed."""

    def open(self, applied: Positions) -> None:
        self._at = {stream_key(p): position or "0-0" for p, position in applied.items()}
        self._partitions = {stream_key(p).encode(): p for p in applied}
        arguments = [self._group, self._holder.name, *self._at.values()]
        if not self._open([self._holder.lease, *self._at], arguments):
            raise LeaseLostError(f"{self._holder.lease} is held by another")

    def read(self, limit: int, block_ms: int) -> list[Entry]:
        if not (entries := self._next(limit)) and self._redis.xread(self._at, count=1, block=block_ms):
            entries = self._next(limit)
        for entry in entries:
            self._at[stream_key(entry.partition)] = entry.position
        if len(self._at) > 1:  # partitions side by side, in the order of arrival
            entries.sort(key=lambda entry: order(entry.position)[0])
        return entries

    def _next(self, limit: int) -> list[Entry]:
        arguments: list[Any] = [self._group, self._holder.name, -(-limit // len(self._at))]
        if (found := self._read([self._holder.lease, *self._at], arguments)) == 0:
            raise LeaseLostError(f"{self._holder.lease} is held by another")
        return [
            _entry(self._partitions[key], number, fields)
            for key, numbered in found or ()
            for number, fields in numbered
        ]

    def acknowledge(self, pipe: Any, entries: Sequence[Entry]) -> None:
        positions: defaultdict[int, list[str]] = defaultdict(list)
        for entry in entries:
            positions[entry.partition].append(entry.position)
        for p, numbers in positions.items():
            pipe.xack(stream_key(p), self._group, *numbers)

    def committed(self, applied: Positions) -> None:
        """Redis has it from `acknowledge`."""

    def ends(self) -> dict[int, str | None]:
        return {p: self._end(key) for p, key in enumerate(stream_keys(self._params.partitions))}

    def before(self, arrival_ms: int) -> dict[int, str | None]:
        keys = stream_keys(self._params.partitions)
        newest = [self._redis.xrevrange(key, f"({arrival_ms}-0", "-", count=1) for key in keys]
        return {p: found[0][0].decode() if found else None for p, found in enumerate(newest)}

    def lag(self) -> dict[str, Lag]:
        return lags(self._redis.eval(*lag_arguments(self._params.partitions)))

    def append(self, partition: int, raw: bytes, only: str | None) -> None:
        append(self._redis, partition, raw, only)

    def trim(self, applied: Mapping[int, str]) -> None:
        oldest = self._redis.time()[0] * 1000 - self._params.keep_hours * HOUR_MS
        for p, position in applied.items():
            self._redis.xtrim(stream_key(p), minid=min(f"{oldest}-0", position, key=order), approximate=False)

    def forget(self) -> None:
        self._redis.unlink(*stream_keys(self._params.partitions))

    def close(self) -> None:
        """The client belongs to the consumer."""

    def _end(self, key: str) -> str | None:
        if not self._redis.exists(key):
            return None
        newest: str = self._redis.xinfo_stream(key)["last-generated-id"].decode()
        return None if newest == "0-0" else newest


class RedisTail:
    """The partitions `endcap:events:<p>`, merged in the order of arrival."""

    def __init__(self, redis: Redis, since: str, partitions: int, limit: int) -> None:
        self._redis: Any = redis
        self._limit = limit
        self._at = dict.fromkeys(stream_keys(partitions), since)

    def next(self) -> list[tuple[int, dict[str, Any]]]:
        """A partition that has more than fits holds the others back at its end."""
        while found := self._arrived():
            if events := [one for one in found if one[1].get("type") != ITEM_CHANGE]:
                return events
        return []

    def _arrived(self) -> list[tuple[int, dict[str, Any]]]:
        arrived: list[tuple[tuple[int, ...], str, Any]] = []
        full: list[int] = []  # arrival (ms) of the newest entry that was read of a partition with more
        for key, after in self._at.items():
            found = self._redis.xrange(key, min=f"({after}", count=self._limit)
            arrived += [(order(number), key, (number, fields)) for number, fields in found]
            if len(found) == self._limit:
                full.append(order(found[-1][0])[0])
        newest = min(full, default=None)
        records = []
        for place, key, (number, fields) in sorted(arrived, key=lambda one: one[:2]):
            if newest is None or place[0] <= newest:
                self._at[key] = number.decode()
                records.append((place[0], orjson.loads(fields[b"event"])))
        return records


def _entry(partition: int, number: bytes, fields: Sequence[bytes]) -> Entry:
    """`fields`: names and values in turn, as a script gives them."""
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    only = found.get(b"only")
    return Entry(partition, number.decode(), found.get(b"event", b""), only.decode() if only else None)
