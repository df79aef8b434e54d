"""The log of live events in Redis Streams: a POST is admitted there by scripts, each event once."""

from collections.abc import Sequence
from typing import Any

import orjson
from redis.asyncio import Redis

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
        for start in range(0, len(events), CHUNK):
            chunk = events[start : start + CHUNK]
            keys = [*self._shared, *(seen_key(event) for event in chunk)]
            # Looked at once per POST, so that one is accepted as a whole or not at all.
            limit = self._params.max_backlog if start == 0 else -1
            arguments: list[Any] = [self._params.partitions, self._seen_ttl_s, limit, *GROUPS]
            for event in chunk:
                arguments += partition_of(event["session_id"], self._params.partitions), orjson.dumps(event)
            found = self._stored(await self._admit(keys, arguments))
            written += [read_mark(mark, bool(twice)) for mark, twice in found]
        return written

    async def write_changes(self, changes: Sequence[dict[str, Any]]) -> list[Written]:
        written: list[Written] = []
        for start in range(0, len(changes), CHUNK):
            limit = self._params.max_backlog if start == 0 else -1
            arguments: list[Any] = [self._params.partitions, limit, *GROUPS, ITEMS]
            for change in changes[start : start + CHUNK]:
                arguments += partition_of(change["item_id"], self._params.partitions), orjson.dumps(change)
            found = self._stored(await self._list([*self._shared, SAID], arguments))
            written += [read_mark(mark, False) for mark in found]
        return written

    def _stored(self, found: Any) -> Any:
        if isinstance(found, int):
            limit = self._params.max_backlog
            raise UnavailableError(f"{found} events wait to be applied, more than {limit}")
        return found

    async def lag(self) -> dict[str, Lag]:
        return lags(await self._redis.eval(*lag_arguments(self._params.partitions)))

    async def close(self) -> None:
        """The client belongs to the service."""
