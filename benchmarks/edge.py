"""What the edge saves: hit ratio and latency of a hit, nginx of deploy/edge before a service, open or own.

    python benchmarks/edge.py [--requests 4000] [--service http://127.0.0.1:3000]

Questions as a storefront asks them before it knows anybody: a surface, a device, a country, drawn by Zipf's
law; a share of them names a shopper and passes through. One connection, one question after the other.
"""

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from shops.edge import edge
from shops.service import running_service

COUNTRIES = ("DE", "AT", "CH", "NL", "FR", "IT", "PL", "DK", "SE", "ES")


def measure(service_url: str, requests: int, known: float, seed: int = 1) -> None:
    """Prints counts, and milliseconds at p50 and p99, by what became of a question."""
    rng, took = np.random.default_rng(seed), dict[str, list[float]]()
    with TemporaryDirectory() as folder, edge(Path(folder), service_url) as front:
        client = httpx.Client(base_url=front.url, timeout=10)
        for n in range(requests):
            country = COUNTRIES[min(int(rng.zipf(1.6)), len(COUNTRIES)) - 1]
            query = {
                "surface": "homepage_hero",
                "country": country,
                "device": rng.choice(("mobile", "desktop")),
            }
            if rng.random() < known:
                query["user_id"] = f"U{n}"
            began = time.perf_counter()
            answer = client.get("/v1/recommend", params=query).raise_for_status()
            took.setdefault(answer.headers["x-cache-status"], []).append(time.perf_counter() - began)
    shared = requests - len(took.get("BYPASS", ()))
    print(f"{requests} questions, {shared} for anybody; hit ratio of these {len(took['HIT']) / shared:.1%}")
    for status, seconds in sorted(took.items()):
        p50, p99 = np.percentile(seconds, (50, 99)) * 1000
        print(f"{status:<7} {len(seconds):>6}   p50 {p50:6.2f} ms   p99 {p99:6.2f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--known", type=float, default=0.3, help="share of questions that name a shopper")
    parser.add_argument("--service", help="default: one of 60 products, started for this")
    asked = parser.parse_args()
    if asked.service:
        measure(asked.service, asked.requests, asked.known)
    else:
        with TemporaryDirectory() as home, running_service(Path(home)) as service:
            measure(service.url, asked.requests, asked.known)
