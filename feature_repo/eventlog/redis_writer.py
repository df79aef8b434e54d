"""The log of live events in Redis Streams: a POST is admitted there by scripts, each event once."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from feature_repo.errors import UnavailableError
from feature_repo.eventlog.contract import Lag, Written, read_mark
from feature_repo.eventlog.keys import (
    APPLIED,
    GROUPS,
    ITEMS,
    SAID,
    StreamParams,
    partition_of,
    seen_key,
    stream_keys,
)
from feature_repo.eventlog.lua import LUA, lag_arguments, lags, script

CHUNK = 50  # events per script call: Redis answers nobody else meanwhile (0.4 ms)


class RedisWriter:
    """Writes to the partitions `endcap:events:<p>`."""

    def __init__(self, redis: Redis, params: StreamParams, seen_ttl_s: int) -> None:
        self._redis: Any = redis
        self._params, self._seen_ttl_s = params, seen_ttl_s
        self._admit, self._list = (redis.register_script(LUA + script(name)) for name in ("admit", "list"))
        self._shared = [APPLIED, *stream_keys(params.partitions)]

    async def write(self, events: Sequence[dict[str, Any]]) -> list[Written]:
        written: list[Written] = []
        async with self._kept(events) as redis:
            for start in range(0, len(events), CHUNK):
                chunk = events[start : start + CHUNK]
                keys = [*self._shared, *(seen_key(event) for event in chunk)]
                # Looked at once per POST, so that one is accepted as a whole or not at all.
                limit = self._params.max_backlog if start == 0 else -1
                arguments: list[Any] = [self._params.partitions, self._seen_ttl_s, limit, *GROUPS]
                for event in chunk:
                    partition = partition_of(event["session_id"], self._params.partitions)
                    arguments += partition, orjson.dumps(event)
                found = self._stored(await self._admit(keys, arguments, client=redis))
                written += [read_mark(mark, bool(twice)) for mark, twice in found]
        return written

    async def write_changes(self, changes: Sequence[dict[str, Any]]) -> list[Written]:
        written: list[Written] = []
        async with self._kept(changes) as redis:
            for start in range(0, len(changes), CHUNK):
                limit = self._params.max_backlog if start == 0 else -1
                arguments: list[Any] = [self._params.partitions, limit, *GROUPS, ITEMS]
                for change in changes[start : start + CHUNK]:
                    arguments += (
                        partition_of(change["item_id"], self._params.partitions),
                        orjson.dumps(change),
                    )
                found = self._stored(await self._list([*self._shared, SAID], arguments, client=redis))
                written += [read_mark(mark, False) for mark in found]
        return written

    @asynccontextmanager
    async def _kept(self, entries: Sequence[Any]) -> AsyncIterator[Any]:
        """A client; what it wrote is on `stream.replicas` replicas at the end, else redis' ResponseError.

        One connection, for WAIT speaks of the writes of its own.
        """
        wanted, limit_ms = self._params.replicas, self._params.replicas_ms
        if not wanted or not entries:
            yield self._redis
            return
        async with self._redis.client() as one:
            yield one
            if (held := await one.wait(wanted, limit_ms)) < wanted:
                raise ResponseError(f"NOREPLICAS {held} of {wanted} have it after {limit_ms} ms")

    def _stored(self, found: Any) -> Any:
        if isinstance(found, int):
            limit = self._params.max_backlog
            raise UnavailableError(f"{found} events wait to be applied, more than {limit}")
        return found

    async def lag(self) -> dict[str, Lag]:
        return lags(await self._redis.eval(*lag_arguments(self._params.partitions)))

    async def close(self) -> None:
        """The client belongs to the service."""
