"""Events a second from the POST to the rows that serving reads, beside what Feast's own writes can take.

    endcap up && python benchmarks/stream.py --rate 3000 --rate 5000 --seconds 20

Visits of this run post their events by the clock, some at a time, as a storefront's collector does.
"applied/s" counts to the instant at which both groups have applied the last one. The stock ways write
finished rows of visits, in this process: no HTTP, no fold, and one of the three rows that an event changes.
The events stay in the shop's features: use a shop that may be made anew. Published figures are those of
`make demo DATA=simulated_12k`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import pandas as pd
import uvloop
from budgets import tell
from freshness import some_items
from load import Connections, loopback

from feature_repo.eventlog.contract import EventLog
from feature_repo.eventlog.keys import StreamParams
from feature_repo.eventlog.open import open_log
from feature_repo.features.sources import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.features.store import open_store
from feature_repo.features.stored import SESSION_CONTEXT
from feature_repo.folds.fold import Event
from feature_repo.online.connection import client
from feature_repo.online.rows import OnlineView
from feature_repo.params import load
from feature_repo.ports import service_url
from feature_repo.quiet import hush

BUDGET = 3_000  # events/s, DESIGN.md section 10
MAX_RATE, MAX_SECONDS = 20_000, 60
KINDS = ("impression", "product_viewed", "click", "add_to_cart", "purchase_completed")
SHARES = (60, 22, 10, 6, 2)
VISIT = 25  # events of a visit; one shopper in two is known
STAMPS = (EVENT_TIMESTAMP, CREATED_TIMESTAMP)


class Traffic:
    """Events of new visits over the shop's items."""

    def __init__(self, items: list[str]) -> None:
        self._items, self._run, self._rng = items, uuid.uuid4().hex[:8], random.Random(0)
        self._made = 0

    def next(self, count: int) -> list[dict[str, Any]]:
        kinds = self._rng.choices(KINDS, SHARES, k=count)
        return [self._event(kind) for kind in kinds]

    def _event(self, kind: str) -> dict[str, Any]:
        self._made += 1
        visit = self._made // (VISIT * 40) * 40 + self._rng.randrange(40)  # 40 visits at a time
        found = {"event_id": f"{self._run}-{self._made}", "type": kind, "session_id": f"{self._run}-{visit}"}
        found |= {"user_id": f"{self._run}-user-{visit}" if visit % 2 else None}
        found |= {"position": self._rng.randrange(1, 20)} if kind == "impression" else {}
        return found | {"item_id": self._rng.choice(self._items)}


async def driven(url: str, log: EventLog, traffic: Traffic, rate: int, seconds: float, batch: int) -> str:
    """A row of the table: `rate` events a second for `seconds`, `batch` in a POST."""
    parts = urlsplit(url)
    pool, failed, latency = Connections(parts.hostname or "", parts.port or 80), Counter[str](), []
    bodies = [orjson.dumps({"events": traffic.next(batch)}) for _ in range(int(rate * seconds / batch))]
    accepted, deepest = 0, 0

    async def post(due: float, body: bytes) -> None:
        nonlocal accepted
        status, answer = await pool.ask("/v1/events", body)
        latency.append((time.perf_counter() - due) * 1000)
        if status == 202:
            accepted += orjson.loads(answer)["accepted"]
        else:
            failed[str(status)] += 1

    async def watch() -> None:
        nonlocal deepest
        while True:
            deepest = max(deepest, await asyncio.to_thread(behind, log))
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch())
    started, tasks = time.perf_counter(), []
    for number, body in enumerate(bodies):
        due = started + number * batch / rate
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(post(due, body)))
    await asyncio.gather(*tasks)
    taken = time.perf_counter() - started
    while await asyncio.to_thread(behind, log):
        await asyncio.sleep(0.01)
    applied = time.perf_counter() - started
    watching.cancel()
    pool.close()
    p50, p99 = np.quantile(latency, (0.5, 0.99))
    if rate == BUDGET:
        tell(stream_applied=accepted / applied)
    return (
        f"{rate:8,d}/s {accepted / taken:11,.0f} {accepted / applied:10,.0f} {deepest:14,d} "
        f"{p50:8.1f} {p99:8.1f} {dict(failed) or 'none'}"
    )


def behind(log: EventLog) -> int:
    """Entries that the slower group has not applied."""
    return max(lag.events for lag in log.lag().values())


def stock(count: int) -> list[str]:
    """Rows a second that Feast's own writes take, one at a time and a hundred at a time."""
    store, view, run = open_store(), OnlineView(SESSION_CONTEXT), uuid.uuid4().hex[:8]
    names = [f"{run}-stock-{i}" for i in range(count)]

    def row(name: str) -> dict[str, Any]:
        event = Event(time.time_ns() // 1000, "product_viewed", None, name, "an item")
        state = SESSION_CONTEXT.step(SESSION_CONTEXT.new(), event)
        return {**SESSION_CONTEXT.row(state), "session_id": name, **dict.fromkeys(STAMPS, datetime.now(UTC))}

    def rows_a_second(size: int, write: Callable[[str, pd.DataFrame], None]) -> float:
        frames = [pd.DataFrame([row(n) for n in names[i : i + size]]) for i in range(0, count, size)]
        write("session_context", frames[0])  # the first call reads the registry
        began = time.perf_counter()
        for frame in frames:
            write("session_context", frame)
        return count / (time.perf_counter() - began)

    found = []
    for size in (1, 100):
        rate = rows_a_second(size, store.write_to_online_store)
        found.append(f"stock write_to_online_store, {size:3d} rows a call {rate:9,.0f} rows/s")
    with client() as redis:
        redis.unlink(*(view.key(name) for name in names))
    return found


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", type=loopback, default=service_url())
    parser.add_argument("--rate", type=int, action="append", help="events a second; repeatable")
    parser.add_argument("--seconds", type=float, default=20.0, help="of posting, per rate")
    parser.add_argument("--batch", type=int, default=50, help="events in a POST")
    args = parser.parse_args()
    rates = args.rate or [BUDGET, 2 * BUDGET]
    if max(rates) > MAX_RATE or args.seconds > MAX_SECONDS or not 1 <= args.batch <= 1_000:
        parser.error(f"at most {MAX_RATE:,} events/s for {MAX_SECONDS} s, and 1 to 1,000 in a POST")
    traffic = Traffic(await some_items(args.url))
    with client() as redis:
        log = open_log(redis, load("stream", StreamParams))
        await driven(args.url, log, traffic, 500, 2.0, args.batch)  # warm-up
        print(f"budget: {BUDGET:,} events/s applied, none refused; {args.batch} events in a POST")
        print(
            "    posted  accepted/s  applied/s  deepest backlog  p50     p99  ms of a POST, from its due time"
        )
        for rate in rates:
            print(await driven(args.url, log, traffic, rate, args.seconds, args.batch), flush=True)
        log.close()
    print(*stock(1_000), sep="\n")


if __name__ == "__main__":
    hush()
    uvloop.run(main())
