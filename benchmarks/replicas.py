"""What `stream.replicas` costs: a POST's write at the door, without and with waiting for replicas.

    python benchmarks/replicas.py

A primary and two replicas on this machine, each with an append-only file; one writer, one POST after another.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from shops.sentinels import Group, patiently
from shops.service import free_port, stop

from feature_repo.eventlog.keys import StreamParams
from feature_repo.eventlog.redis_writer import RedisWriter
from feature_repo.online.connection import of_requests
from feature_repo.params import load

PROJECT = Path(__file__).resolve().parents[1]


def event(number: int) -> dict[str, str | int | None]:
    return {
        "event_id": f"e{number}",
        "event_ts": number,
        "type": "product_viewed",
        "session_id": f"s{number % 500}",
        "user_id": None,
        "item_id": f"item-{number % 1000}",
    }


async def posts(url: str, params: StreamParams, batch: int, count: int, first: int) -> np.ndarray:
    """Milliseconds of each of `count` writes of `batch` events."""
    redis, took = of_requests(url), []
    writer = RedisWriter(redis, params, 3600)
    for number in range(count):
        events = [event(first + number * batch + i) for i in range(batch)]
        began = time.perf_counter()
        await writer.write(events)
        took.append(1000 * (time.perf_counter() - began))
    await redis.aclose()
    return np.array(took[count // 10 :])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--posts", type=int, default=1000)
    count = parser.parse_args(argv).posts
    with tempfile.TemporaryDirectory() as home:
        shutil.copy(PROJECT / "params.yaml", home)
        os.environ["ENDCAP_HOME"] = home
        group = Group(Path(home), [free_port() for _ in range(3)], [], 0)
        try:
            for port in group.ports:
                group.start(port, None if port == group.ports[0] else group.ports[0])
            patiently(lambda: group.redis(group.ports[0]).info("replication")["connected_slaves"] == 2)
            params, first = load("stream", StreamParams), 0
            print("replicas  events  p50 ms  p99 ms")
            for batch in (1, 50):
                for replicas in (0, 1, 2):
                    kept = replace(params, replicas=replicas, replicas_ms=5_000, max_backlog=10**9)
                    took = asyncio.run(posts(group.url_of(group.ports[0]), kept, batch, count, first))
                    first += batch * count
                    middle, tail = np.percentile(took, (50, 99))
                    print(f"{replicas:8d}  {batch:6d}  {middle:6.2f}  {tail:6.2f}", flush=True)
        finally:
            for process in group.processes.values():
                stop(process)


if __name__ == "__main__":
    main()
