"""?wait=1: as many as may wait are told when it is so, by one look at Redis for all; the others at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio

from feature_repo.eventlog.keys import APPLIED, GROUPS, applied_field
from serving.http.waiting import Waiters

pytestmark = pytest.mark.fault
LAST = {0: "1700000000000-7", 2: "1700000000000-3"}
POSITIONS = {applied_field(group, p): at for group in GROUPS for p, at in LAST.items()}


def over(url: str, job: Callable[[Any], Awaitable[None]]) -> None:
    async def run() -> None:
        client: Any = redis.asyncio.Redis.from_url(url)
        try:
            await job(client)
        finally:
            await client.aclose()

    asyncio.run(run())


async def looks(client: Any) -> int:
    """How often Redis was asked for the positions."""
    found = await client.info("commandstats")
    return int(found.get("cmdstat_hgetall", {}).get("calls", 0))


def test_a_thousand_who_wait_cost_as_many_looks_as_one(redis_url: str) -> None:
    async def job(client: Any) -> None:
        waiters, before = Waiters(client, 1000), await looks(client)
        waiting = [asyncio.create_task(waiters.applied(LAST, 60)) for _ in range(1000)]
        late = asyncio.create_task(waiters.applied({0: "1700000000000-8"}, 0.5))
        await asyncio.sleep(0.1)
        assert not any(one.done() for one in waiting)
        await client.hset(APPLIED, mapping=POSITIONS)
        assert await asyncio.gather(*waiting) == [True] * 1000
        assert await late is False
        assert await looks(client) - before < 600  # not a thousand times that
        idle = await looks(client)
        await asyncio.sleep(0.1)
        assert await looks(client) <= idle + 1  # nobody waits, nobody looks

    over(redis_url, job)


def test_one_more_than_may_wait_is_told_at_once_and_a_place_is_free_again_afterwards(redis_url: str) -> None:
    async def job(client: Any) -> None:
        waiters = Waiters(client, 2)
        first, second = (asyncio.create_task(waiters.applied(LAST, 60)) for _ in range(2))
        await asyncio.sleep(0)
        assert await asyncio.wait_for(waiters.applied(LAST, 60), 5) is False
        first.cancel()  # its client went away
        await asyncio.gather(first, return_exceptions=True)
        third = asyncio.create_task(waiters.applied(LAST, 60))
        await asyncio.sleep(0)
        assert not third.done()
        await client.hset(APPLIED, mapping=POSITIONS)
        assert await asyncio.gather(second, third) == [True, True]
        assert await waiters.applied({}, 60) is True

    over(redis_url, job)


def test_a_redis_that_is_away_is_waited_for_as_long_as_the_waiters_wait() -> None:
    async def job(client: Any) -> None:
        assert await Waiters(client, 2).applied(LAST, 0.05) is False

    over("redis://127.0.0.1:1/0", job)
