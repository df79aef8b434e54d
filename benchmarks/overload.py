"""Four times what a running service can answer live: what each request gets, and how soon all is well again.

    endcap up && python benchmarks/overload.py

The knee is what four clients get who ask again as soon as they are answered: all of it live. Then requests
start by the clock at four times that rate, as in benchmarks/load.py, and afterwards one at a time until two
in a row are live again. Loopback only. The client needs a core of its own: else its delay is in every figure.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson
import uvloop
from budgets import tell
from load import MAX_RATE, Connections, loopback

from feature_repo.ports import service_url

LIMIT, SHOPPERS, CLIENTS, RECOVERS_S, SETTLES_S = 12, 1_000, 4, 30.0, 0.5


@dataclass
class Outcome:
    """Latencies in ms of full lists, counts by what they were served from; `failed`: the others by reason."""

    latency: list[float] = field(default_factory=list)
    rungs: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def quantile(self, q: float) -> float:
        ordered = sorted(self.latency)
        return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else float("nan")

    def row(self) -> str:
        done = max(sum(self.rungs.values()), 1)
        shares = "  ".join(f"{name} {count / done:.1%}" for name, count in self.rungs.most_common())
        p50, p99 = self.quantile(0.5), self.quantile(0.99)
        rate = done / self.seconds
        told = f"{rate:7.0f}/s answered  p50 {p50:.1f} ms  p99 {p99:.1f} ms"
        return f"{told}  failed {dict(self.failed)}  {shares}"


async def ask(pool: Connections, outcome: Outcome, number: int, due: float) -> str:
    """One request of one of many shoppers; the rung it got, "" where the list was not full."""
    who = number % SHOPPERS
    body = {"surface": "homepage_hero", "user_id": f"U{who}", "session_id": f"S{who}", "limit": LIMIT}
    try:
        status, raw = await pool.ask("/v1/recommend", orjson.dumps(body))
    except (OSError, asyncio.IncompleteReadError) as error:
        outcome.failed[type(error).__name__] += 1
        return ""
    answer = orjson.loads(raw) if status == 200 else {"items": []}
    if len({slot["item_id"] for slot in answer["items"]}) < LIMIT:
        outcome.failed[f"{status}, {len(answer['items'])} slots"] += 1
        return ""
    rung = str(answer["served_from"])
    outcome.rungs[rung] += 1
    outcome.latency.append((time.perf_counter() - due) * 1000)
    return rung if answer["degraded"] is None else f"{rung}, {answer['degraded']}"


async def closed(url: str, clients: int, seconds: float) -> Outcome:
    """`clients` who ask again as soon as they are answered."""
    pool, outcome, began = _pool(url), Outcome(), time.perf_counter()

    async def client(number: int) -> None:
        while (now := time.perf_counter()) < began + seconds:
            await ask(pool, outcome, number, now)
            number += clients

    await asyncio.gather(*map(client, range(clients)))
    outcome.seconds = time.perf_counter() - began
    pool.close()
    return outcome


async def opened(url: str, rate: float, seconds: float) -> Outcome:
    """`rate` requests a second by the clock, whether or not the last one came back."""
    pool, outcome, began = _pool(url), Outcome(), time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(ask(pool, outcome, number, due)))
    await asyncio.gather(*tasks)
    outcome.seconds = time.perf_counter() - began
    pool.close()
    return outcome


async def recovery(url: str) -> float:
    """Seconds until two answers in a row are live with everything in them; inf after RECOVERS_S."""
    pool, began, number, well = _pool(url), time.perf_counter(), 0, 0
    while time.perf_counter() < began + RECOVERS_S:
        rung = await ask(pool, Outcome(), number, time.perf_counter())
        well = well + 1 if rung in ("live", "precomputed") else 0
        if well == 2:
            return time.perf_counter() - began
        number += 1
        await asyncio.sleep(0.02)
    return float("inf")


def _pool(url: str) -> Connections:
    parts = urlsplit(url)
    return Connections(parts.hostname or "", parts.port or 80)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", type=loopback, default=service_url())
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--times", type=float, default=4.0, help="of the knee")
    args = parser.parse_args()
    await closed(args.url, CLIENTS, 2.0)
    await asyncio.sleep(SETTLES_S)  # workers share connections by those that they know of
    knee = await closed(args.url, CLIENTS, args.seconds)
    print(f"knee    {knee.row()}", flush=True)
    rate = min(args.times * len(knee.latency) / knee.seconds, MAX_RATE)
    await asyncio.sleep(SETTLES_S)
    outcome = await opened(args.url, rate, args.seconds)
    print(f"{rate:.0f}/s  {outcome.row()}")
    again = await recovery(args.url)
    print(f"itself again after {again:.2f} s")
    tell(
        overload_knee=len(knee.latency) / knee.seconds,
        overload_p99=outcome.quantile(0.99),
        overload_failed=sum(outcome.failed.values()),
        overload_again_s=again,
    )


if __name__ == "__main__":
    uvloop.run(main())
