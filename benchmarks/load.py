"""Open-loop load on a running service: requests start by the clock, whether or not the last one came back.

    endcap up && python benchmarks/load.py --rate 100 --rate 300 --seconds 20

Latency counts from the instant a request was due, so a stall shows in every request that it delayed
(no coordinated omission). `--floor` first asks for /livez at the same rates: what the machine, the client and
the server's HTTP cost without a recommendation. Loopback only; the rate and the duration are bounded.
Published figures are those of `make demo DATA=simulated_12k`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import ipaddress
import random
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson
import uvloop
from budgets import tell

from feature_repo.ports import service_url

MAX_RATE, MAX_SECONDS = 2_000, 120
KEEP_ALIVE_S = 3.0  # the server closes an idle connection after 5


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
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, path: str, body: bytes | None, key: str = "") -> tuple[int, bytes]:
        """Status and body of a POST, or of a GET where there is no body; `key` is a bearer's."""
        reader, writer = await self._open()
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {self._host}\r\n"
        head += f"Authorization: Bearer {key}\r\n" if key else ""
        head += f"Content-Type: application/json\r\nContent-Length: {len(body or b'')}\r\n\r\n"
        writer.write(head.encode() + (body or b""))
        status_line, *headers = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        lengths = [int(h[15:]) for h in headers if h.lower().startswith(b"content-length:")]
        answer = await (reader.readexactly(lengths[0]) if lengths else _chunks(reader))
        self._idle.append((time.perf_counter(), reader, writer))
        return int(status_line.split()[1]), answer

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            since, reader, writer = self._idle.pop()
            if time.perf_counter() - since < KEEP_ALIVE_S:
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

    def close(self) -> None:
        for _, _, writer in self._idle:
            writer.close()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A body in chunks, as of an answer that waits."""
    found = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        found += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return found


async def drive(url: str, rate: int, seconds: float, limit: int, shoppers: int) -> Result:
    """`rate` recommendations a second for `seconds`, by `shoppers` different visitors; limit 0: /livez."""
    parts = urlsplit(url)
    pool, result = Connections(parts.hostname or "", parts.port or 80), Result(rate)
    rng = random.Random(0)
    users = [rng.randrange(shoppers) for _ in range(int(rate * seconds))]

    async def one(due: float, user: int) -> None:
        body = {"surface": "homepage_hero", "user_id": f"U{user}", "session_id": f"S{user}", "limit": limit}
        path, content = ("/v1/recommend", orjson.dumps(body)) if limit else ("/livez", None)
        try:
            status, answer = await pool.ask(path, content)
        except (OSError, asyncio.IncompleteReadError) as error:
            result.failed[type(error).__name__] += 1
            return
        took = (time.perf_counter() - due) * 1000
        if reason := shortfall(status, answer, limit):
            result.failed[reason] += 1
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


def stages(url: str) -> float:
    """ms that all stages of all answers have taken so far, of /metrics."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        told = [line for line in answer if line.startswith(b"endcap_stage_seconds_sum")]
    return 1000 * sum(float(line.split()[-1]) for line in told)


def shortfall(status: int, answer: bytes, limit: int) -> str | None:
    """Why an answer does not count; None for a full one with everything in it."""
    if status != 200:
        return str(status)
    if limit == 0:
        return None
    found = orjson.loads(answer)
    return found["degraded"] or (None if len(found["items"]) == limit else "fewer slots")


def loopback(url: str) -> str:
    """The URL, if it is plain HTTP on this machine; argparse turns the ValueError into a usage error."""
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
    if parts.scheme != "http" or not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"{url}: this load is for services on this machine")
    return url


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", type=loopback, default=service_url())
    parser.add_argument("--rate", type=int, action="append", help="requests a second; repeatable")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--shoppers", type=int, default=1000)
    parser.add_argument("--floor", action="store_true", help="ask for /livez too, at the same rates")
    args = parser.parse_args()
    rates = args.rate or [100, 300]
    if max(rates) > MAX_RATE or args.seconds > MAX_SECONDS:
        parser.error(f"at most {MAX_RATE} requests/s for {MAX_SECONDS} s")
    await drive(args.url, 50, 2.0, args.limit, args.shoppers)  # warm-up: connections, caches
    print("budget: p50 <= 2.5 ms at 100/s, p99 < 10 ms at 100/s and 300/s, no failure")
    print("    rate   done/s      p50      p95      p99      max  failed   (ms, from when a request was due)")
    failed, floor = 0, 0.0
    for limit in (0, args.limit) if args.floor else (args.limit,):
        print("/livez" if limit == 0 else "/v1/recommend")
        for rate in rates:
            gc.collect()
            before = stages(args.url)
            result = await drive(args.url, rate, args.seconds, limit, args.shoppers)
            print(result.row(), flush=True)
            if limit == 0:
                floor = floor or result.quantile(0.5)
                continue
            failed += sum(result.failed.values())
            tell(**{f"load_p50_{rate}": result.quantile(0.5), f"load_p99_{rate}": result.quantile(0.99)})
            if floor and rate == rates[0]:
                parts = floor + (stages(args.url) - before) / max(len(result.latency), 1)
                times = result.quantile(0.5) / parts
                print(f"p50 over the sum of the bare endpoint and the stages: {times:.2f}")
                tell(load_parts=times)
    tell(load_failed=failed)


if __name__ == "__main__":
    uvloop.run(main())
