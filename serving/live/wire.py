"""Commands that are packed already, to Redis and back on connections that stay open.

redis-py's pipeline packs, locks, probes the socket and counts for every read: 0.3 ms of python on the path of
each request, of which this leaves 0.1 (benchmarks/online.py).
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError


class Wire:
    """One round trip at a time on each connection; as many connections as there are round trips at once."""

    def __init__(self, pool: ConnectionPool, patience_s: float) -> None:
        """`pool` says how a connection is made; none is taken from it. `patience_s` is for one round trip."""
        self._pool, self.patience_s = pool, patience_s
        self._idle: list[Any] = []

    async def ask(self, commands: Sequence[bytes], beside: int = 0) -> list[Any]:
        """The replies, in order; None for one of the last `beside` that Redis refuses, as a write where too
        few replicas follow. Raises redis' errors and TimeoutError.

        A connection that Redis closed while it was idle is replaced, once; a cancelled one is dropped, since
        its replies would be read by the next.
        """
        connection, used = (self._idle.pop(), True) if self._idle else (self._pool.make_connection(), False)
        async with asyncio.timeout(self.patience_s):
            try:
                return await self._exchange(connection, commands, beside)
            except RedisConnectionError:
                if not used:
                    raise
            while self._idle:  # they are of the same age
                await self._idle.pop().disconnect(nowait=True)
            return await self._exchange(self._pool.make_connection(), commands, beside)

    async def _exchange(self, connection: Any, commands: Sequence[bytes], beside: int) -> list[Any]:
        replies: list[Any] = []
        try:
            if not connection.is_connected:
                await connection.connect()  # which asks the sentinels, where there are any
            await connection.send_packed_command(commands, check_health=False)
            for left in range(len(commands), 0, -1):
                try:
                    replies.append(await connection.read_response())
                except ResponseError:
                    if left > beside:
                        raise
                    replies.append(None)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._idle.append(connection)
        return replies
