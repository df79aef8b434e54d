"""The feature stage beside the stock ways of reading online features, on one Redis, in one run.

    python benchmarks/online.py --items 12000 --rate 100 --seconds 10
    endcap up && python benchmarks/online.py --url http://127.0.0.1:3000

Starts a Redis of its own with rows that the folds made: 12,000 items, 2,000 shoppers and their visits. Calls
begin by the clock, `--rate` a second; a call's time is its own, without what it waited for its turn. With
`--url` it asks a running service instead and prints the quantiles of its stages, as its histograms bound
them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import redis.asyncio as redis_asyncio
import uvloop
from budgets import tell as say
from load import drive, loopback
from redis import Redis

from feature_repo.assemble.vectorize import assemble
from feature_repo.assemble.visitor import Scores, Visitor, history
from feature_repo.clock import DAY_US, MINUTE_US
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.store import open_store
from feature_repo.features.stored import ITEM_ACTIVITY, SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds.fold import Event
from feature_repo.online import changes
from feature_repo.online.connection import answers
from feature_repo.online.rows import OnlineView, read_rows, write_newer
from feature_repo.quiet import hush
from pipelines.local.stack import redis_server
from serving.live import online_features as reader
from serving.live.online_features import OnlineFeatures
from serving.release.loaded import settle

PROJECT = Path(__file__).resolve().parents[1]
BUDGET_MS = 1.0
CANDIDATES = 120
SHOPPERS = 2000
NOW = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
STAGES = ("features", "filter", "retrieve", "rank", "diversify")
Call = Callable[[int], Awaitable[None]]


@contextmanager
def bare_redis() -> Iterator[str]:
    """URL of an empty Redis in a project folder of its own; both are gone afterwards."""
    with tempfile.TemporaryDirectory() as home, socket.socket() as probe:
        shutil.copy(PROJECT / "params.yaml", home)
        os.environ["ENDCAP_HOME"] = home
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", home]
        server = subprocess.Popen([redis_server(), *options], stdout=subprocess.DEVNULL)
        url = f"redis://127.0.0.1:{port}/0"
        try:
            while not answers(url):
                time.sleep(0.05)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=10)


def fill(redis: Redis, project: str, ids: list[str]) -> None:
    """Rows as the stream leaves them: 20 contacts per shopper, a visit of 12 views, every item touched."""
    rng = random.Random(0)
    user, session = OnlineView(USER_HISTORY), OnlineView(SESSION_CONTEXT)
    rows: dict[OnlineView, list[Any]] = {user: [], session: []}
    for i in range(SHOPPERS):
        for view, count, start in ((user, 25, NOW - DAY_US), (session, 12, NOW - 20 * MINUTE_US)):
            fold: Any = view.declared
            state, ts = fold.new(), start
            for step in range(count):
                ts = start + step * MINUTE_US
                fold.step(state, Event(ts, "product_viewed", f"U{i}", f"S{i}", rng.choice(ids)))
            rows[view].append((f"{'U' if view is user else 'S'}{i}", ts, fold.row(state)))
    catalogue = OnlineView(ITEM_CATALOGUE)
    known = {c.name: None for c in ITEM_CATALOGUE.columns}
    known |= {"title": "A thing", "brand": "brand", "margin": 0.4, "stock": 9, "available_from": NOW - DAY_US}
    rows[catalogue] = [
        (item, NOW, {**known, "price": 5.0 + i % 90, "category_path": f"Home/{i % 9}/{i % 40}"})
        for i, item in enumerate(ids)
    ]
    for view, found in rows.items():
        for at in range(0, len(found), 1000):
            write_newer(redis, view, found[at : at + 1000])
    touch(redis, project, ids, NOW - MINUTE_US)


def touch(redis: Redis, project: str, ids: list[str], ts: int) -> None:
    """One more view of every item of `ids`, at `ts` (us), announced as the stream does."""
    view = OnlineView(ITEM_ACTIVITY)
    for at in range(0, len(ids), 1000):
        rows = []
        for item in ids[at : at + 1000]:
            state = ITEM_ACTIVITY.new()
            ITEM_ACTIVITY.step(state, Event(ts, "product_viewed", None, "S", item))
            rows.append((item, ts, ITEM_ACTIVITY.row(state)))
        changes.announce(redis, write_newer(redis, view, rows))


async def open_loop(call: Call, rate: int, seconds: float) -> list[float]:
    """ms of each call; calls begin by the clock, whether or not the last one has ended."""
    taken: list[float] = []

    async def one(number: int) -> None:
        began = time.perf_counter()
        await call(number)
        taken.append((time.perf_counter() - began) * 1000)

    started, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        if (pause := started + number / rate - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.gather(*tasks)
    return taken


async def compare(url: str, ids: list[str], rate: int, seconds: float) -> None:
    """Every way in turn, on the same rows."""
    store, ours = open_store(url), OnlineFeatures(url, ids)
    redis, client, project = Redis.from_url(url), redis_asyncio.Redis.from_url(url), store.project
    fill(redis, project, ids)
    ours.load_items()
    rng = np.random.default_rng(0)
    settle()
    drawn = rng.integers(0, len(ids), (1000, CANDIDATES))
    scores = Scores(*np.zeros((7, CANDIDATES), np.float32))
    activity = OnlineView(ITEM_ACTIVITY)
    visitor_service, item_service = (store.get_feature_service(name) for name in ("visitor", "items"))

    async def ping(_: int) -> None:
        await client.get("nothing")

    async def rows(i: int) -> None:
        await ours.read(f"U{i % SHOPPERS}", f"S{i % SHOPPERS}", NOW)

    async def stage(i: int) -> None:
        await ours.read(f"U{i % SHOPPERS}", f"S{i % SHOPPERS}", NOW)
        matrix, chosen = ours.matrix.as_of(NOW), drawn[i % 1000]
        for column in matrix.activity.values():
            column[chosen]

    async def assembled(i: int) -> None:
        user, session, *_ = await ours.read(f"U{i % SHOPPERS}", f"S{i % SHOPPERS}", NOW)
        matrix = ours.matrix.as_of(NOW)
        visitor = Visitor(NOW, "homepage_hero", f"S{i % SHOPPERS}", user=user, session=session)  # type: ignore[arg-type]
        assemble(visitor, history(visitor, matrix), matrix, drawn[i % 1000], scores)

    async def gather(i: int) -> None:
        matrix = ours.matrix
        for column in matrix.activity.values():
            column[drawn[i % 1000]]

    async def feast_visitor(i: int) -> None:
        asked = [{"user_id": f"U{i % SHOPPERS}", "session_id": f"S{i % SHOPPERS}"}]
        store.get_online_features(visitor_service, asked, full_feature_names=True).to_dict()

    async def feast_items(i: int) -> None:
        asked = [{"item_id": ids[row]} for row in drawn[i % 1000]]
        store.get_online_features(item_service, asked, full_feature_names=True).to_dict()

    async def pipelined(i: int) -> None:
        read_rows(redis, activity, [ids[row] for row in drawn[i % 1000]])

    print(f"{len(ids):,} items, {rate} calls/s for {seconds:g} s each{'':23} p50      p99      max  ms")
    taken = await open_loop(stage, rate, seconds)
    tell("feature stage: two rows, 8 columns of 120 items", taken)
    say(online_p99=float(np.quantile(taken, 0.99)))
    tell("  and the 28 model inputs made of them", await open_loop(assembled, rate, seconds))
    tell("  user and session row, one round trip", await open_loop(rows, rate, seconds))
    tell("  one GET by the same client: what the machine allows", await open_loop(ping, rate, seconds))
    tell("  8 columns of 120 items from the matrix", await open_loop(gather, rate, seconds))
    tell("Feast, user and session row", await open_loop(feast_visitor, rate, seconds))
    columns = len(ITEM_ACTIVITY.columns) + len(ITEM_CATALOGUE.columns)
    tell(f"Feast, 120 items x {columns} columns", await open_loop(feast_items, rate, seconds))
    tell("120 items x 8 columns, one HMGET pipeline", await open_loop(pipelined, rate, seconds))

    print("\nfeature stage while another thread refreshes every item without end")
    for part, pause in ((reader.REFRESHED, reader.PAUSE_S), (500, 0.0)):
        reader.REFRESHED, reader.PAUSE_S = part, pause
        refreshes: list[float] = []
        done = asyncio.Event()

        async def storm(costs: list[float] = refreshes, done: asyncio.Event = done) -> None:
            while not done.is_set():
                for at in range(0, len(ids), 500):
                    await asyncio.to_thread(changes.announce, redis, ids[at : at + 500])
                began = time.perf_counter()
                await asyncio.to_thread(ours.refresh)
                costs.append((time.perf_counter() - began) * 1000)

        storming = asyncio.create_task(storm())
        tell(f"  read in parts of {part}, {pause * 1000:g} ms apart", await open_loop(stage, rate, seconds))
        done.set()
        await storming
        print(f"    {len(refreshes)} refreshes of {len(ids):,} rows, {np.median(refreshes):.0f} ms each")
    began = time.perf_counter()
    for at in range(100):
        few = ours.matrix.updated(drawn[at], {name: np.ones(CANDIDATES) for name in ours.matrix.activity})
        few.popularity()
    cost = (time.perf_counter() - began) * 10
    print(f"\nsnapshot with {CANDIDATES} other rows, popularity included: {cost:.2f} ms")
    changes.announce(redis, ids[:100])
    began = time.perf_counter()
    ours.refresh()
    cost = (time.perf_counter() - began) * 1000
    print(f"refresh of 100 rows, as twice a second in a live shop: {cost:.1f} ms")


def tell(name: str, taken: list[float]) -> None:
    """One line of the table."""
    cells = np.quantile(taken, (0.5, 0.99, 1.0))
    print(f"{name:<60}" + " ".join(f"{cell:8.3f}" for cell in cells), flush=True)


def histogram(url: str, stage: str) -> dict[float, float]:
    """Upper bound in seconds -> answers at or below it, of /metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    wanted = [
        line for line in lines if line.startswith("endcap_stage_seconds_bucket") and f'"{stage}"' in line
    ]
    return {float(line.split('le="')[1].split('"')[0]): float(line.rsplit(" ", 1)[1]) for line in wanted}


async def served(url: str, rate: int, seconds: float) -> None:
    """Stages of a running service under load."""
    await drive(url, rate, 2.0, 12, SHOPPERS)
    before = {stage: histogram(url, stage) for stage in STAGES}
    result = await drive(url, rate, seconds, 12, SHOPPERS)
    print(
        f"{rate} recommendations/s for {seconds:g} s, {sum(result.failed.values())} failed; stage, ms at most"
    )
    for stage in STAGES:
        after = histogram(url, stage)
        counts = {bound: count - before[stage].get(bound, 0) for bound, count in after.items()}
        total = max(counts.values())
        cells = [min(b for b, n in counts.items() if n >= q * total) * 1000 for q in (0.5, 0.95, 0.99)]
        print(f"  {stage:<10} p50 <= {cells[0]:6.2f}   p95 <= {cells[1]:6.2f}   p99 <= {cells[2]:6.2f}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--url", type=loopback, help="a running service, instead of a Redis of its own")
    args = parser.parse_args()
    if args.rate > 1000 or args.seconds > 60 or args.items > 200_000:
        parser.error("at most 1000 calls/s for 60 s on 200,000 items")
    print(f"budget: p99 of the feature stage < {BUDGET_MS:g} ms at 100/s with 12,000 items")
    if args.url:
        await served(args.url, args.rate, args.seconds)
        return
    with bare_redis() as url:
        await compare(url, [f"item {i}" for i in range(args.items)], args.rate, args.seconds)


if __name__ == "__main__":
    hush()
    uvloop.run(main())
