"""How long an event takes to show in its visit's next answer, beside other traffic and beside the stock way.

    endcap up && python benchmarks/freshness.py --seconds 10

While `--rate` recommendations and `--events` events a second come from other visits, a new visit posts one
product view `--probes` times a second and asks until `session_views` counts it (or posts with ?wait=1 and
asks once). The time runs from the POST being sent to the answer being read. Likewise a new price, until
`price_log` shows it; the catalogue key is that of the shop, and prices are put back at the end. The stock way
writes the finished row by Feast's write_to_online_store and reads it by get_online_features, in a thread of
this process: no HTTP and no fold. Against a shop without ENDCAP_REPLAY, whose clock is that of its data.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import pandas as pd
import uvloop
from budgets import tell
from load import Connections, drive, loopback

from feature_repo.features.sources import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.features.store import open_store
from feature_repo.features.stored import SESSION_CONTEXT
from feature_repo.folds.fold import Event
from feature_repo.online.connection import client
from feature_repo.online.rows import OnlineView
from feature_repo.ports import SECRET, service_url, token
from feature_repo.quiet import hush

GIVE_UP_S = 5.0
BUDGET_MS = 50.0  # DESIGN.md section 10
PRICE_MS = 1_000.0
PER_POST = 10  # events of other visits per request
Probe = Callable[[int], Awaitable[float]]


class Visits:
    """New visits of this run against one service."""

    def __init__(self, url: str, items: list[str], key: str | None) -> None:
        self._key, self.prices = key or "", dict[str, float]()
        parts = urlsplit(url)
        self._pool, self._items = Connections(parts.hostname or "", parts.port or 80), items
        self._run, self._rng = uuid.uuid4().hex[:8], random.Random(0)
        self.failed: Counter[str] = Counter()
        self.asked: list[int] = []  # answers until the event showed

    def view(self, session: str) -> dict[str, Any]:
        found = {"event_id": uuid.uuid4().hex, "type": "product_viewed"}
        return found | {"session_id": f"{session}-{self._run}", "item_id": self._rng.choice(self._items)}

    async def post(self, events: list[dict[str, Any]], wait: bool = False) -> None:
        path = "/v1/events?wait=1" if wait else "/v1/events"
        status, body = await self._pool.ask(path, orjson.dumps({"events": events}))
        if status != 202:
            self.failed[f"{status} {body[:60]!r}"] += 1

    async def shown(self, session_id: str) -> bool:
        body = {"surface": "homepage_hero", "session_id": session_id, "limit": 1, "debug": True}
        _, answer = await self._pool.ask("/v1/recommend", orjson.dumps(body), self._key)
        debug = orjson.loads(answer).get("debug")  # the holdout's answers have none
        if debug is None:
            raise LookupError
        return next(iter(debug["features"].values()))[debug["columns"].index("session_views")] >= 1

    async def until_shown(self, number: int) -> float:
        event, began = self.view(f"probe{number}"), time.perf_counter()
        await self.post([event])
        for count in range(1, 10_000):
            if await self.shown(event["session_id"]):
                self.asked.append(count)
                return time.perf_counter() - began
            if time.perf_counter() - began > GIVE_UP_S:
                break
        self.failed["never shown"] += 1
        return GIVE_UP_S

    async def waited(self, number: int) -> float:
        event, began = self.view(f"waited{number}"), time.perf_counter()
        await self.post([event], wait=True)
        if not await self.shown(event["session_id"]):
            self.failed["not shown after wait=1"] += 1
        return time.perf_counter() - began

    async def log_prices(self) -> dict[str, float]:
        """Item -> logarithm of its price, of those that are shown to nobody in particular."""
        body = {"surface": "homepage_hero", "limit": 100, "debug": True}
        _, answer = await self._pool.ask("/v1/recommend", orjson.dumps(body), self._key)
        debug = orjson.loads(answer)["debug"]
        at = debug["columns"].index("price_log")
        return {item: values[at] for item, values in debug["features"].items()}

    async def reprice(self, prices: dict[str, float]) -> None:
        said = [{"item_id": item, "price": price} for item, price in prices.items()]
        status, answer = await self._pool.ask("/v1/items", orjson.dumps({"items": said}), self._key)
        if status != 202:
            self.failed[f"{status} {answer[:60]!r}"] += 1

    async def price_shown(self, number: int) -> float:
        """A cent more or less than it was, of an item that is shown; `prices` gets what it was at first."""
        item, cents = self._items[number % len(self._items)], (number // len(self._items) + 1) / 100
        if item not in self.prices:
            was = (await self.log_prices()).get(item)
            if was is None:
                raise LookupError
            self.prices[item] = round(float(np.exp(was)), 2)
        price, began = self.prices[item] + cents, time.perf_counter()
        await self.reprice({item: price})
        while time.perf_counter() - began < GIVE_UP_S:
            found = (await self.log_prices()).get(item)
            if found is None:  # other events moved it out of the list
                raise LookupError
            if abs(found - np.log(price)) < 1e-6:
                return time.perf_counter() - began
        self.failed["new price never shown"] += 1
        return GIVE_UP_S

    async def others(self, rate: int, seconds: float) -> int:
        """Events of other visits by the clock; how many were sent."""
        started, tasks = time.perf_counter(), []
        for number in range(int(rate * seconds / PER_POST)):
            if (pause := started + number * PER_POST / rate - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            events = [self.view(f"other{self._rng.randrange(500)}") for _ in range(PER_POST)]
            tasks.append(asyncio.create_task(self.post(events)))
        await asyncio.gather(*tasks)
        return len(tasks) * PER_POST

    def close(self) -> None:
        self._pool.close()


async def probed(probe: Probe, rate: float, seconds: float) -> list[float]:
    """ms of each probe, begun by the clock; visits in the holdout are left out."""
    taken: list[float] = []

    async def one(number: int) -> None:
        try:
            taken.append(await probe(number) * 1000)
        except LookupError:
            return

    started, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        if (pause := started + number / rate - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    return taken


def stock() -> tuple[Probe, Callable[[], None]]:
    """Feast's own write and read of a visit's row, and what deletes those rows."""
    store, view, keys = open_store(), OnlineView(SESSION_CONTEXT), []
    run = uuid.uuid4().hex[:8]

    def write_and_read(session: str) -> float:
        state = SESSION_CONTEXT.step(
            SESSION_CONTEXT.new(), Event(time.time_ns() // 1000, "product_viewed", None, session, "an item")
        )
        stamps = dict.fromkeys((EVENT_TIMESTAMP, CREATED_TIMESTAMP), datetime.now(UTC))
        row = {**SESSION_CONTEXT.row(state), "session_id": session, **stamps}
        began = time.perf_counter()
        store.write_to_online_store("session_context", pd.DataFrame([row]))
        asked = ["session_context:views"]
        found = store.get_online_features(asked, [{"session_id": session}]).to_dict()
        assert found["views"] == [1]
        return time.perf_counter() - began

    async def probe(number: int) -> float:
        session = f"stock{number}-{run}"
        keys.append(view.key(session))
        return await asyncio.to_thread(write_and_read, session)

    def clear() -> None:
        with client() as redis:
            redis.unlink(*keys)

    return probe, clear


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", type=loopback, default=service_url())
    parser.add_argument("--seconds", type=float, default=20.0, help="per way of asking; there are four")
    parser.add_argument("--rate", type=int, default=100, help="recommendations a second of other visits")
    parser.add_argument("--events", type=int, default=200, help="events a second of other visits")
    parser.add_argument("--probes", type=float, default=10.0, help="new visits a second")
    args = parser.parse_args()
    if args.seconds > 60 or max(args.rate, args.events) > 2_000 or args.probes > 20:
        parser.error("at most 60 s, 2,000 recommendations and events a second, 20 probes a second")
    visits = Visits(args.url, await some_items(args.url), token(SECRET))
    feast, clear = stock()
    await feast(-1)  # its first call reads the registry
    gc.collect()
    print(f"budget: p99 < {BUDGET_MS:.0f} ms, posted and asked until it shows; of a price {PRICE_MS:.0f} ms")
    print(f"{args.rate} recommendations/s and {args.events} events/s of other visits")
    print(f"{'event posted -> in the next answer':<44} probes      p50      p95      p99      max  ms")
    for name, probe, figure in (
        ("posted, asked until it shows", visits.until_shown, "fresh_event_p99"),
        ("posted with wait=1, asked once", visits.waited, "fresh_waited_p99"),
        ("new price, asked until it shows", visits.price_shown, "fresh_price_p99"),
        ("stock Feast: row written, row read", feast, "fresh_stock_p99"),
    ):
        taken, load, _ = await asyncio.gather(
            probed(probe, args.probes, args.seconds),
            drive(args.url, args.rate, args.seconds, 12, 1000),
            visits.others(args.events, args.seconds),
        )
        cells = " ".join(f"{cell:8.1f}" for cell in np.quantile(taken, (0.5, 0.95, 0.99, 1.0)))
        tell(**{figure: float(np.quantile(taken, 0.99))})
        print(f"{name:<44} {len(taken):6d} {cells}   {dict(load.failed) or ''}", flush=True)
    print(f"asked {np.mean(visits.asked):.1f} times until it showed; failed: {dict(visits.failed) or 'none'}")
    clear()
    if visits.prices:
        await visits.reprice(visits.prices)
    visits.close()


async def some_items(url: str) -> list[str]:
    """Items that the shop sells."""
    parts = urlsplit(url)
    pool = Connections(parts.hostname or "", parts.port or 80)
    _, answer = await pool.ask("/v1/recommend", b'{"surface": "homepage_hero", "limit": 100}')
    pool.close()
    return [slot["item_id"] for slot in orjson.loads(answer)["items"]]


if __name__ == "__main__":
    hush()
    uvloop.run(main())
