"""Open-loop load on a running service: requests start by the clock, whether or not the last one came back.

    endcap up && python benchmarks/load.py --rate 100 --rate 300 --seconds 20

Latency counts from the instant a request was due, so a stall shows in every request that it delayed
(no coordinated omission). Loopback only; the rate and the duration are bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import ipaddress
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson
import uvloop

MAX_RATE, MAX_SECONDS = 2_000, 120
ITEMS_PER_SESSION = 3


@dataclass
class Result:
    """Latencies in ms of what was answered 200 and full; `failed` counts everything else by its reason."""

    rate: int
    seconds: float = 0.0
    latency: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)

    def quantile(self, q: float) -> float:
        ordered = sorted(self.latency)
        return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else float("nan")

    def row(self) -> str:
        cells = (self.quantile(q) for q in (0.5, 0.95, 0.99, 1.0))
        done = len(self.latency) / self.seconds
        figures = " ".join(f"{cell:8.2f}" for cell in cells)
        return (
            f"{self.rate:6d}/s {done:8.1f} {figures} {sum(self.failed.values()):7d} {dict(self.failed) or ''}"
        )


class Connections:
    """Keep-alive HTTP/1.1 connections, opened as needed; one request at a time on each."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body."""
        pair = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        reader, writer = pair
        head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        status_line, *headers = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        length = next(int(h[15:]) for h in headers if h.lower().startswith(b"content-length:"))
        answer = await reader.readexactly(length)
        self._idle.append(pair)
        return int(status_line.split()[1]), answer

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


async def drive(url: str, rate: int, seconds: float, limit: int, shoppers: int) -> Result:
    """`rate` recommendations a second for `seconds`, by `shoppers` different visitors."""
    parts = urlsplit(url)
    pool, result = Connections(parts.hostname or "", parts.port or 80), Result(rate)
    rng = random.Random(0)
    users = [rng.randrange(shoppers) for _ in range(int(rate * seconds))]

    async def one(due: float, user: int) -> None:
        body = {"surface": "homepage_hero", "user_id": f"U{user}", "session_id": f"S{user}", "limit": limit}
        try:
            status, answer = await pool.post("/v1/recommend", orjson.dumps(body))
        except (OSError, asyncio.IncompleteReadError) as error:
            result.failed[type(error).__name__] += 1
            return
        took = (time.perf_counter() - due) * 1000
        if status != 200:
            result.failed[str(status)] += 1
        elif len((found := orjson.loads(answer))["items"]) < limit or found["degraded"]:
            result.failed[found["degraded"] or "fewer slots"] += 1
        else:
            result.latency.append(took)

    started = time.perf_counter()
    tasks = []
    for i, user in enumerate(users):
        due = started + i / rate
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(due, user)))
    await asyncio.gather(*tasks)
    result.seconds = time.perf_counter() - started
    pool.close()
    return result


def loopback(url: str) -> str:
    """The URL, if it is plain HTTP on this machine; argparse turns the ValueError into a usage error."""
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
    if parts.scheme != "http" or not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"{url}: this load is for services on this machine")
    return url


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", type=loopback, default="http://127.0.0.1:3000")
    parser.add_argument("--rate", type=int, action="append", help="requests a second; repeatable")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--shoppers", type=int, default=1000)
    args = parser.parse_args()
    rates = args.rate or [100, 300]
    if max(rates) > MAX_RATE or args.seconds > MAX_SECONDS:
        parser.error(f"at most {MAX_RATE} requests/s for {MAX_SECONDS} s")
    await drive(args.url, 50, 2.0, args.limit, args.shoppers)  # warm-up: connections, caches
    print("    rate   done/s      p50      p95      p99      max  failed   (ms, from when a request was due)")
    for rate in rates:
        gc.collect()
        print((await drive(args.url, rate, args.seconds, args.limit, args.shoppers)).row(), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
