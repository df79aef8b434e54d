"""New items: how soon a list may hold them, and what their rows cost a request.

    python benchmarks/newborn.py            # beside a running shop (`endcap up`)
    python benchmarks/newborn.py --path     # the request path of its champion alone, no service

The first says items to the shop (`POST /v1/items`), one after the other, asks until each stands in a list of
100 on the page of the product that it resembles, and says that it is deleted. The second asks in turn, in one
process, with 0, 100 and 5,000 appended rows, and takes the CPU time.
"""

from __future__ import annotations

import argparse
import time
import uuid
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
from budgets import tell

from feature_repo.assemble.matrix import ItemMatrix, Newborns
from feature_repo.features.catalogue import catalogue_rows
from feature_repo.online.connection import connect
from feature_repo.params import root
from feature_repo.places import ITEMS, at
from feature_repo.ports import SECRET, service_url, token
from serving.pipeline import recommend, visitor_of
from serving.release import bundle, state
from serving.types import Request

PATIENCE_S = 30.0


def soon(count: int) -> None:
    """Print p50, p99 and the slowest of `count` items."""
    rows, took = catalogue_rows(at(ITEMS)).to_pylist(), []
    run, key = uuid.uuid4().hex[:8], token(SECRET)
    head = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=service_url(), timeout=10, headers=head) as client:

        def say(told: dict[str, Any]) -> None:
            answer = client.post("/v1/items", json={"items": [told]})
            if answer.status_code != 202 or answer.json()["rejected"]:
                raise SystemExit(f"POST /v1/items: {answer.status_code} {answer.text[:300]}")

        for i in range(count):
            like = rows[(i * 97) % len(rows)]
            item, same = f"benchmark-{run}-{i}", ("category_path", "brand", "price")
            told = {"item_id": item, "stock": 5, "title": f"{like['title']}, new"}
            began = time.perf_counter()
            say(told | {name: like[name] for name in same if like[name] is not None})
            while not listed(client, like["item_id"], item):
                if time.perf_counter() - began > PATIENCE_S:
                    raise SystemExit(f"{item} was in no list after {PATIENCE_S:.0f} s")
                time.sleep(0.02)
            took.append(time.perf_counter() - began)
            say({"item_id": item, "deleted": True})
    p50, p99 = np.quantile(took, [0.5, 0.99])
    tell(newborn_p99_s=float(p99))
    print(
        f"{count} new items, from the POST to a list: p50 {p50:.2f} s, p99 {p99:.2f} s, max {max(took):.2f} s"
    )


def listed(client: httpx.Client, anchor: str, item: str) -> bool:
    """Whether a visitor on the page of `anchor` gets `item` among 100."""
    body = {"surface": "similar_items", "items": [anchor], "session_id": "benchmark", "limit": 100}
    answer = client.post("/v1/recommend", json=body).json()
    return any(slot["item_id"] == item for slot in answer["items"])


def path(rounds: int, counts: Sequence[int] = (0, 100, 5000)) -> None:
    """Print the median CPU time of a request per number of appended rows, asked in turn."""
    with connect() as redis:
        release = bundle.load(root() / state.present(redis).champion.path)
    table = pq.read_table(at(ITEMS))
    ids, columns = release.models.ids, _columns(table)
    plain, rng = ItemMatrix(ids, columns), np.random.default_rng(0)
    vectors = rng.normal(size=(max(counts), release.models.item_vectors.shape[1])).astype(np.float32)
    matrices = [
        plain.with_newborns(
            [f"new {i}" for i in range(n)],
            Newborns.of([1] * n, list(vectors[:n])),
            {name: (values * (n // len(values) + 1))[:n] for name, values in columns.items()},
        )
        if n
        else plain
        for n in counts
    ]
    took: dict[int, list[float]] = {n: [] for n in counts}
    now = time.time_ns() // 1000
    for i in range(rounds):
        anchors = tuple(ids[j] for j in rng.integers(0, len(ids), 5))
        request = Request(surface="homepage_hero", session_id=f"s{i}", items=anchors)
        visitor = visitor_of(request, now, None, None)
        for n, matrix in zip(counts, matrices, strict=True):
            matrix.popularity(), matrix.exposure()
            began = time.process_time()
            recommend(request, release, visitor, matrix)
            took[n].append(time.process_time() - began)
    medians = {n: float(np.median(times)) for n, times in took.items()}
    for n, median in medians.items():
        print(
            f"{len(ids):,} items and {n:,} appended: {1e3 * median:.3f} ms, {median / medians[0]:.3f} of none"
        )


def _columns(table: Any) -> dict[str, list[Any]]:
    names = ("price", "margin", "stock", "category_path", "brand")
    return {name: table[name].to_pylist() for name in names} | {"available_from": [None] * len(table)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=600)
    parser.add_argument("--path", action="store_true")
    asked = parser.parse_args()
    if asked.path:
        path(asked.rounds)
    else:
        soon(asked.items)
