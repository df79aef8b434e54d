"""Mutated bodies of every system against a running service: no 500, no hang, the service alive at the end.

    python benchmarks/mutants.py --bodies 100000 --url http://127.0.0.1:3000

With $ENDCAP_SECRET_TOKEN the bodies come by that key: all are judged, none is one too many of its shopper.
Bodies are those of tests/shops/payloads.py with a few parts changed, the same for the same --seed. Prints how
many answers of each status each door gave, and the slowest.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from shops.mutants import mutant, written
from shops.payloads import payloads

ADDRESSES = {
    "ga4": ("/compat/ga4/mp/collect",),
    "gtm": ("/compat/gtm",),
    "ga4 export": ("/compat/ga4/export",),
    "segment": ("/compat/segment/v1/batch", "/compat/rudderstack/v1/batch"),
    "snowplow": ("/compat/snowplow/com.snowplowanalytics.snowplow/tp2",),
    "shopify": ("/compat/shopify",),
    "metarank": ("/compat/metarank/feedback", "/compat/metarank/rank/m", "/compat/metarank/recommend/m"),
    "gorse": ("/compat/gorse/api/feedback", "/compat/gorse/api/session/recommend", "/compat/gorse/api/items"),
    "algolia": ("/compat/algolia/1/events",),
    "google": ("/compat/google/v2/projects/p/userEvents:write",),
    "ubi": ("/compat/ubi",),
}
ASKED = {  # bodies of those addresses that take no events
    "/compat/metarank/rank/m": {"id": "r", "user": "u", "session": "s", "items": [{"id": "SKU-00001"}]},
    "/compat/metarank/recommend/m": {"count": 5, "user": "u", "items": ["SKU-00001"]},
}
PROPER = {200, 202, 204, 400, 401, 403, 413, 422, 429}


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--url", default="http://127.0.0.1:3000")
    arguments.add_argument("--bodies", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    bodies = payloads(datetime.now(UTC) - timedelta(hours=1))
    targets = [(name, path) for name, paths in ADDRESSES.items() for path in paths]

    def post(n: int) -> tuple[str, int, float]:
        name, path = targets[n % len(targets)]
        content = written(mutant(ASKED.get(path, bodies[name][2]), given.seed + n), given.seed + n)
        began = time.perf_counter()
        answer = client.post(path, content=content)
        return path, answer.status_code, time.perf_counter() - began

    seen: Counter[tuple[str, int]] = Counter()
    slowest = 0.0
    key = os.environ.get("ENDCAP_SECRET_TOKEN")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with (
        httpx.Client(base_url=given.url, timeout=10, headers=headers) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        for path, status, seconds in pool.map(post, range(given.bodies), chunksize=50):
            seen[path, status] += 1
            slowest = max(slowest, seconds)
        alive = client.get("/livez").status_code
    for (path, status), count in sorted(seen.items()):
        print(f"{path:<52} {status} {count:>8,}")
    wrong = {key: count for key, count in seen.items() if key[1] not in PROPER}
    print(f"{sum(seen.values()):,} bodies, slowest {slowest * 1000:.0f} ms, /livez {alive}, improper {wrong}")
    return 1 if wrong or alive != 200 else 0


if __name__ == "__main__":
    raise SystemExit(main())
