"""What one more shopper, visit, item, event and list take: Redis, a worker, the log, the disk, CPU.

    python benchmarks/footprint.py               half a minute of CPU; a Redis and two shops of its own
    python benchmarks/footprint.py --told --shoppers 5e6 --items 2e5 --rate 2000

Two simulated shops, the second twice the first, go through import and backfill, the door, the consumers and
the log of what was shown; all visits of a shop side by side, so that a batch of a consumer holds many. What
the second has more is told per one more, the rest is the constant. CPU is that of this process and of Redis.
The plan that follows is computed from these figures; with `--told` from those of docs/scale.md.
"""

from __future__ import annotations

import argparse
import os
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import fields, replace
from io import StringIO
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import uvloop
import yaml
from capacity import Demand, estimate
from figures import QUANTITIES, part, read, tables
from latency import catalogue, vectors
from online import bare_redis
from redis import Redis
from simulated_posts import shown, told

from feature_repo.clock import SECOND_US
from feature_repo.eventlog.keys import StreamParams
from feature_repo.eventlog.open import open_writer
from feature_repo.features.catalogue import DECLARED, ITEM_CATALOGUE, catalogue_rows
from feature_repo.features.stored import SESSION_CONTEXT, USER_HISTORY
from feature_repo.folds.fold import Event
from feature_repo.offline.build import main as features
from feature_repo.online import changes
from feature_repo.online.connection import of_requests, wires
from feature_repo.online.listings import write_said
from feature_repo.online.rows import OnlineView, write_newer
from feature_repo.params import load
from feature_repo.persons.privacy import persons
from feature_repo.places import EVENTS, IMPRESSIONS, ITEMS, at
from feature_repo.quiet import hush
from pipelines.ingest import ingest
from pipelines.simulate import simulate
from pipelines.stream.members import tasks
from pipelines.stream.worker import Worker
from serving.access.counting import Source, Verdicts
from serving.access.credentials import OPEN, Caller
from serving.access.policy import Access
from serving.access.signatures import Signatures
from serving.access.tolls import TollGate
from serving.http.ingress import Clock, Ingress
from serving.live.exposures import ExposureLog
from serving.live.online_features import OnlineFeatures
from serving.live.wire import Wire
from serving.params import Serving
from serving.stages.index import IndexParams

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
SIZES = ((600, 250), (1_200, 500))  # items; visits of eight weeks
LARGE = (20_000, 60_000)  # items, where the time of a snapshot is seen
INFO = {
    "net": ("total_net_input_bytes", "total_net_output_bytes"),
    "redis": ("used_cpu_user_main_thread", "used_cpu_sys_main_thread"),
    "aof": ("aof_current_size",),
}
KEYS: dict[str, str | bytes] = {  # what a key of the pattern is one of; a stream or a set holds many
    "exposure": "endcap:exposures",
    "logged": "endcap:events:*",
    "seen": "endcap:seen:*",
    "done": "endcap:done:*",
    "counted_list": "endcap:counted:list:*",
    "counted_visit": "endcap:counted:visit:*",
    "counted_client": "endcap:counted:client:*",
    "listed": "endcap:items:listed",
    "changed": "endcap:items:changed",
}
KEYS |= {
    name: OnlineView(one).pattern() for name, one in zip(("shopper", "visit", "item"), DECLARED, strict=False)
}
MANY = {b"stream": "xlen", b"set": "scard", b"zset": "zcard"}


class Shop:
    """A simulated shop: `total` of each quantity, in bytes or us, and the `count` of what it is for."""

    def __init__(self, url: str, redis: Redis) -> None:
        self._url, self._redis = url, redis
        self.total: defaultdict[str, float] = defaultdict(float)
        self.count: defaultdict[str, float] = defaultdict(float)

    def add(self, name: str, total: float, count: float) -> None:
        self.total[name] += total
        self.count[name] += count

    @contextmanager
    def flow(self, name: str) -> Iterator[list[float]]:
        """Takes the COSTS of a block, which says of how many."""
        before, began, many = self._info(), time.thread_time(), [0.0]
        yield many
        self.add(f"{name}_cpu", (time.thread_time() - began) * 1e6, many[0])
        for kind, value in self._info().items():
            self.add(f"{name}_{kind}", value - before[kind], many[0])

    def _info(self) -> dict[str, float]:
        info: Any = self._redis.info()
        found = {kind: sum(float(info[field]) for field in fields) for kind, fields in INFO.items()}
        return found | {"redis": found["redis"] * 1e6}

    def offline(self, items: int, visits: int) -> None:
        """data/raw and data/features, by the jobs; the catalogue in Redis, by its writer."""
        file = Path(os.environ["ENDCAP_HOME"]) / "params.yaml"
        params = yaml.safe_load(file.read_text())
        params["simulate"]["sizes"]["simulated"] = {"departments": 4, "skus": items, "sessions": visits}
        params["features"]["workers"] = 1
        file.write_text(yaml.safe_dump(params))
        with redirect_stdout(StringIO()):
            simulate.main(), ingest.main(), features()
        events = sum(pq.read_metadata(at(name)).num_rows for name in (EVENTS, IMPRESSIONS))
        for name, folder in (("raw", at(EVENTS).parent), ("rows", at(EVENTS).parents[1] / "features")):
            files = [one for one in folder.glob("*.parquet") if one.stem not in ("items", "item_catalogue")]
            self.add(name, sum(one.stat().st_size for one in files), events)
        said = [(row["item_id"], SECOND_US, row) for row in catalogue_rows(at(ITEMS)).to_pylist()]
        write_said(self._redis, OnlineView(ITEM_CATALOGUE), said)
        changes.mark(self._redis)

    async def live(self) -> None:
        """Lists are logged, events told and applied, and the rows read that each list needs."""
        access = load("access", Access)
        serving = replace(load("serving", Serving), write_deadline_ms=60_000)  # beside whatever else runs
        stream = replace(load("stream", StreamParams), block_ms=1, lease_ms=600_000)
        client, wire, gate = of_requests(self._url), Wire(wires(self._url), 60.0), TollGate(access.rates)
        signatures, log = Signatures(access.signing), ExposureLog(client, serving)
        verdicts = Verdicts(wire.ask, signatures, access.counting)
        writer = open_writer(client, stream, serving.seen_ttl_s)
        door = Ingress(client, writer, serving, verdicts=verdicts, persons=persons())
        posts = told()
        lists = list(shown(posts, signatures, log))
        with self.flow("show") as many:
            await log.flush()
            many[0] = len(lists)
        with self.flow("door") as many:
            for events in posts:
                now, visit = events[-1]["event_ts"], events[0]["session_id"]
                source = Source(gate.events(Caller(OPEN), visit, visit, len(events)), visit)
                many[0] += (await door.accept(events, Clock(now, now, 0, now), source)).accepted
        self.add("events_per_post", many[0], len(posts))
        self.add("events_per_list", many[0], len(lists))
        self.add("lists_per_visit", len(lists), len({events[0]["session_id"] for events in posts}))
        for key in self._redis.scan_iter("endcap:events:*"):
            raw = [fields[b"event"] for _, fields in self._redis.xrange(key)]
            self.add("json", sum(map(len, raw)), len(raw))
            batches = [b"".join(raw[start : start + 50]) for start in range(0, len(raw), 50)]
            self.add("packed", sum(len(pa.compress(one, "lz4", asbytes=True)) for one in batches), len(raw))
        for task in tasks(stream.partitions):
            worker = Worker(self._redis, task, stream, "one")
            worker.take_over()
            with self.flow(task.group) as many:
                while found := worker.step():
                    many[0] += found
        reader = OnlineFeatures(self._url, [])
        reader._wire.patience_s = wire.patience_s
        with self.flow("read") as many:
            for request, now in lists:
                toll = gate.lists(Caller(OPEN), request.session_id, request.session_id)
                await reader.read(request.user_id, request.session_id, now, toll.command)
            many[0] = len(lists)

    def stored(self) -> None:
        """What Redis holds, by kind of key."""
        for name, pattern in KEYS.items():
            for key in self._redis.scan_iter(pattern, count=1_000):
                size = MANY.get(self._redis.type(key))
                many = getattr(self._redis, size)(key) if size else 1
                self.add(name, self._redis.memory_usage(key, samples=0), many)
        self.add("all", self._redis.info()["used_memory"], self.count["logged"])
        self.add("kinds", sum(self.total[name] for name in KEYS), self.count["logged"])

    def full(self) -> None:
        """Rows whose every list is full: of one who comes and buys for years, of a visit without an end."""
        kinds = ("impression", *("add_to_cart", "remove_from_cart") * 2, "purchase_completed", "add_to_cart")
        for name, fold in (("shopper_full", USER_HISTORY), ("visit_full", SESSION_CONTEXT)):
            state, view = fold.new(), OnlineView(fold)
            for step in range(700):
                item = f"SKU-{step % (100 if step < 600 else 50):05d}"
                visit = f"p-{step // 100 if fold is USER_HISTORY else 0:032d}"
                event = Event(
                    step * SECOND_US, kinds[step // 100], f"p-{1:032d}", visit, item, None, 1 + step % 24
                )
                state = fold.step(state, event) if fold.reads(event) else state
            write_newer(self._redis, view, [(f"p-{2:032d}", step * SECOND_US, fold.row(state))])
            self.add(name, self._redis.memory_usage(view.key(f"p-{2:032d}"), samples=0), 1)

    def worker(self) -> None:
        """What a worker has of its own: loaded from this Redis, then with one item touched."""
        ids = pq.read_table(at(ITEMS))["item_id"].to_pylist()
        tracemalloc.start()
        loaded = OnlineFeatures(self._url, ids)
        loaded.load_items()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        touched(loaded.matrix)
        self.add("private", held, len(ids))
        self.add("snapshot", tracemalloc.get_traced_memory()[1] - held, len(ids))
        tracemalloc.stop()

    def large(self, items: int) -> None:
        """Of items by chance: the time of a snapshot, and the bytes of a graph over a twentieth of them."""
        units, leaf = vectors(items, rng := np.random.default_rng(0))
        matrix = catalogue([f"SKU-{row:08d}" for row in range(items)], leaf, rng)
        spent = []
        for _ in range(5):
            began = time.thread_time()
            touched(matrix)
            spent.append((time.thread_time() - began) * 1e9)
        self.add("snapshot_ns", float(np.median(spent)), items)
        graph = faiss.IndexHNSWFlat(units.shape[1], load("index", IndexParams).m, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = 16  # how good the links are, not how many
        graph.add(units[: items // 20])
        self.add("graph", len(faiss.serialize_index(graph)), items // 20)


def touched(matrix: Any) -> None:
    """A snapshot in which one item's counts are others, with all that requests share."""
    row = np.array([0])
    matrix.updated(row, {name: column[row] for name, column in matrix.activity.items()}).warm(matrix)


async def measure(
    sizes: Sequence[tuple[int, int]] = SIZES, large: Sequence[int] = LARGE
) -> tuple[dict[str, float], dict[str, float]]:
    """Everything per one more, and the bytes that do not grow."""
    shops = []
    for size, items in zip(sizes, large, strict=True):
        with bare_redis() as url, Redis.from_url(url) as redis:
            redis.config_set("appendonly", "yes")
            shop = Shop(url, redis)
            shop.offline(*size)
            await shop.live()
            shop.stored()
            shop.full()
            shop.worker()
            shop.large(items)
            shops.append(shop)
    one, two = shops
    found, constant = {}, {}
    for name in one.total:
        found[name] = (one.total[name] + two.total[name]) / (one.count[name] + two.count[name])
        if name in (*QUANTITIES, "all", "kinds") and (more := two.count[name] - one.count[name]):
            found[name] = (two.total[name] - one.total[name]) / more
            constant[name] = one.total[name] - found[name] * one.count[name]
    return found, constant


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--told", action="store_true", help="take the figures of docs/scale.md")
    for one in fields(Demand):
        name = f"--{one.name.replace('_', '-')}"
        parser.add_argument(name, type=float, default=one.default, help=f"{one.default:,g}")
    args = parser.parse_args()
    demand = Demand(**{one.name: getattr(args, one.name) for one in fields(Demand)})
    if args.told:
        print(estimate(read(part(PAGE.read_text(), "measured")), demand))
        return
    found, constant = uvloop.run(measure())
    print(figures := tables(found, constant), estimate(read(figures), demand), sep="\n\n")
    print(f"\nof {found['all']:.0f} bytes of Redis per event these kinds of keys are {found['kinds']:.0f}")


if __name__ == "__main__":
    hush()
    main()
