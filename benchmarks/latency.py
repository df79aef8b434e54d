"""What an answer costs with 12,000, 100,000 and a million items: time, requests per core, memory, recall.

    python benchmarks/latency.py                      a graph of a million items is built: ten minutes
    python benchmarks/latency.py --items 12000 --items 100000 --indexes

Each size has a process of its own, which makes a release of random parts (vectors in clusters, sparse tables,
a catalogue of leaf categories; no training) and asks it as the service does, stages and all, without HTTP.
Requests begin by the clock: a time counts from when a request was due. The knee is what one core answers
when the next request begins as soon as the last has ended; `x` compares processor time with the first size,
so it can be read on a machine that does other things. Memory is what is resident, and what a second worker
has of its own. `--indexes` builds every index that could serve: what `index:` of params.yaml was chosen by.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
from budgets import tell
from scipy import sparse

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.clock import DAY_US, MINUTE_US
from feature_repo.features.stored import SESSION_CONTEXT
from feature_repo.folds.fold import Event
from feature_repo.params import load
from serving.pipeline import Bundle, recommend, visitor_of
from serving.release import bundle
from serving.release.loaded import settle
from serving.stages.index import Exact, IndexParams
from serving.types import Request

SIZES = (12_000, 100_000, 1_000_000)
SURFACES = ("homepage_hero", "pdp_fbt", "cart_upsell", "similar_items")
BUDGET_MS, DIM, ENTRIES, PER_LEAF = 10.0, 64, 20, 250
NOW = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z


def vectors(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """L2-normalised float32 (n, 64) around centres, and the cluster of each: an item's leaf category."""
    centres = rng.normal(size=(max(n // PER_LEAF, 40), DIM)).astype(np.float32)
    leaf = rng.integers(0, len(centres), n)
    found = centres[leaf] + rng.normal(scale=0.7, size=(n, DIM)).astype(np.float32)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32), leaf


def table(n: int, rng: np.random.Generator) -> sparse.csr_matrix:
    """ENTRIES neighbours of each item, ascending: as a fitted table, but by chance."""
    steps = rng.integers(1, max(n // (2 * ENTRIES), 2), (n, ENTRIES), dtype=np.int32)
    columns = np.sort((np.arange(n, dtype=np.int32)[:, None] + np.cumsum(steps, axis=1, dtype=np.int32)) % n)
    weights = rng.exponential(size=n * ENTRIES).astype(np.float32)
    return sparse.csr_matrix((weights, columns.ravel(), np.arange(0, n * ENTRIES + 1, ENTRIES)), shape=(n, n))


def release(home: Path, like: Path, n: int) -> Path:
    """A bundle of `n` items with the towers and trees of the small one at `like`."""
    rng, folder = np.random.default_rng(n), home / "synthetic"
    folder.mkdir(parents=True)
    for name in bundle.files_of([file.name for file in like.iterdir()]):
        (folder / name).write_bytes((like / name).read_bytes())
    units, leaf = vectors(n, rng)
    np.save(folder / "item_vectors.npy", units)
    np.save(folder / "als_items.npy", units[:, :32])
    np.save(folder / "attraction.npy", rng.normal(scale=0.3, size=n).astype(np.float32))
    np.save(home / "leaf.npy", leaf)
    ids = [f"item-{row}" for row in range(n)]
    (folder / "item_ids.json").write_text(json.dumps(ids))
    (folder / "rails.json").write_text(json.dumps({"popular": ids[:200]}))
    for name in bundle.TABLES:
        sparse.save_npz(folder / f"{name}.npz", table(n, rng), compressed=False)
    told = json.loads((like / "manifest.json").read_text())
    return bundle.write(folder, {name: told[name] for name in bundle.SETTINGS}, home / "data" / "bundles")


def catalogue(ids: list[str], leaf: np.ndarray, rng: np.random.Generator) -> ItemMatrix:
    """Every item with a price, one in twenty sold out, one in a hundred new, views by a power law."""
    n = len(ids)
    columns: dict[str, Any] = {
        "price": rng.uniform(5, 100, n),
        "margin": [None] * n,
        "stock": np.where(rng.random(n) < 0.05, 0, 9),
        "available_from": np.where(rng.random(n) < 0.01, NOW - DAY_US, NOW - 90 * DAY_US),
        "category_path": [f"Home/{one % 12}/{one}" for one in leaf.tolist()],
        "brand": [f"brand {row % 300}" for row in range(n)],
    }
    matrix = ItemMatrix(ids, columns)
    views = {name: np.zeros(n, column.dtype) for name, column in matrix.activity.items()}
    views["at"][:], views["first_ts"][:] = NOW - MINUTE_US, NOW - 60 * DAY_US
    views["views_7d"][:] = rng.pareto(1.2, n)
    matrix.apply(np.arange(n), views)
    return matrix.warm(matrix)


def questions(matrix: ItemMatrix, rng: np.random.Generator, most: int = 400) -> list[tuple[Request, Any]]:
    """Visits of twelve views within a few leaf categories, on every surface in turn."""
    found = []
    for at in range(most):
        state, kinds = SESSION_CONTEXT.new(), matrix.grouped("category")
        for step in range(12):
            near = kinds.of(np.array([1 + (at * 7 + step // 5) % (len(matrix.categories) - 1)]))
            item = matrix.ids[int(rng.choice(near))]
            event = Event(NOW - 20 * MINUTE_US + step * MINUTE_US, "product_viewed", None, f"S{at}", item)
            SESSION_CONTEXT.step(state, event)
        surface = SURFACES[at % len(SURFACES)]
        page = (item,) if surface != "homepage_hero" else ()
        request = Request(surface, session_id=f"S{at}", items=page)
        found.append((request, visitor_of(request, NOW, None, SESSION_CONTEXT.row(state))))
    return found


def held() -> tuple[float, float]:
    """Resident memory of this process and what of it is its own alone, 10^6 bytes."""
    told = psutil.Process().memory_full_info()
    return told.rss / 1e6, told.uss / 1e6


def measure(home: Path, path: Path, rate: int, seconds: float) -> dict[str, Any]:
    """One size, in this process: load, CPU per surface, open loop, knee, memory."""
    began = time.perf_counter()
    loaded = bundle.load(path)
    took = time.perf_counter() - began
    rng = np.random.default_rng(1)
    matrix = catalogue(loaded.models.ids, np.load(home / "leaf.npy"), rng)
    asked = questions(matrix, rng)
    for one in asked[:80]:
        answer(loaded, matrix, *one)
    settle()
    spent: dict[str, list[float]] = {surface: [] for surface in SURFACES}
    began_cpu = time.process_time()
    for request, visitor in asked:
        before = time.process_time()
        answer(loaded, matrix, request, visitor)
        spent[request.surface].append((time.process_time() - before) * 1e6)
    knee = len(asked) / (time.process_time() - began_cpu)
    latency = list(open_loop(loaded, matrix, asked, rate, seconds))
    resident, own = held()
    search_ms, recall = searched(loaded)
    return {
        "search_ms": search_ms,
        "recall": recall,
        "items": len(matrix),
        "load_s": took,
        "cpu_us": {surface: float(np.median(taken)) for surface, taken in spent.items()},
        "per_core": knee,
        "ms": np.quantile(latency, (0.5, 0.95, 0.99)).tolist(),
        "resident_mb": resident,
        "own_mb": own,
        "index": type(loaded.models.index).__name__,
    }


def searched(loaded: Bundle, k: int = 120, most: int = 200) -> tuple[float, float]:
    """Of the index that serves: p95 of a search, ms, and the share of the exact `k` nearest it finds."""
    rng, units = np.random.default_rng(2), loaded.models.item_vectors
    taken, hits = [], 0
    queries = units[rng.choice(len(units), most, replace=False)] + rng.normal(scale=0.03, size=(most, DIM))
    for query in queries.astype(np.float32):
        loaded.models.index.search(query, k)  # its part of the file is in memory now
        began = time.perf_counter()
        rows, _ = loaded.models.index.search(query, k)
        taken.append((time.perf_counter() - began) * 1000)
        hits += len(np.intersect1d(rows, np.argpartition(-(units @ query), k)[:k]))
    return float(np.quantile(taken, 0.95)), hits / (k * most)


def answer(loaded: Bundle, matrix: ItemMatrix, request: Request, visitor: Any) -> None:
    slots = recommend(request, loaded, visitor, matrix).slots
    if len(slots) != request.limit:
        raise SystemExit(f"{request}: {len(slots)} of {request.limit} slots")


def open_loop(
    loaded: Bundle, matrix: ItemMatrix, asked: list[tuple[Request, Any]], rate: int, seconds: float
) -> Iterator[float]:
    """ms from when each request was due to its answer."""
    gc.collect()
    started = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = started + number / rate
        if (pause := due - time.perf_counter()) > 0:
            time.sleep(pause)
        answer(loaded, matrix, *asked[number % len(asked)])
        yield (time.perf_counter() - due) * 1000


def indexes(n: int) -> None:
    """Build time, size, recall@120 and processor time of a search, of every kind."""
    rng = np.random.default_rng(2)
    units, _ = vectors(n, rng)
    queries = units[rng.choice(n, 100, replace=False)] + rng.normal(scale=0.03, size=(100, DIM))
    queries = queries.astype(np.float32)
    exact, params, lists = Exact(units), load("index", IndexParams), int(4 * np.sqrt(n))
    before = time.process_time()
    best = [set(exact.search(query, 120)[0].tolist()) for query in queries]
    print(f"{n:9,} exact{'':27}1.000 {(time.process_time() - before) * 1e4:9.0f} us")
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    for kind, efforts in (
        (f"HNSW{params.m},Flat", (120, 256, 512)),
        (f"HNSW{params.m},SQ8", (256, 512)),
        (f"IVF{lists},Flat", (16, 64)),
        (f"IVF{lists},SQ8", (16, 64)),
        (f"IVF{lists},PQ16", (64,)),
    ):
        index: Any = faiss.index_factory(DIM, kind, faiss.METRIC_INNER_PRODUCT)
        graph = kind.startswith("HNSW")
        if graph:
            index.hnsw.efConstruction = params.ef_construction
        else:
            index.cp.niter, index.cp.max_points_per_centroid = 8, 64
        began = time.perf_counter()
        index.train(units[: lists * 64])
        index.add(units)
        built, megabytes = time.perf_counter() - began, len(faiss.serialize_index(index)) / 1e6
        asked = 120 if kind.endswith("Flat") else 240  # coarse vectors: the best of them by exact products
        for effort in efforts:
            of: Any = {"efSearch": effort} if graph else {"nprobe": effort}
            search: Any = (faiss.SearchParametersHNSW if graph else faiss.SearchParametersIVF)(**of)  # type: ignore[attr-defined]
            hits, before = 0, time.process_time()
            for query, wanted in zip(queries, best, strict=True):
                rows = index.search(query[None], asked, params=search)[1][0]
                rows = rows[rows >= 0]
                rows = rows[np.argsort(-(units[rows] @ query), kind="stable")[:120]]
                hits += len(wanted & set(rows.tolist()))
            us = (time.process_time() - before) * 1e4
            told = f"built in {built:6.1f} s, {megabytes:6.0f} MB"
            print(f"{n:9,} {kind:<16} effort {effort:<8}{hits / 12_000:.3f} {us:9.0f} us  {told}", flush=True)


def child(*words: str | Path) -> dict[str, Any]:
    """This program in a process of its own; the JSON that it prints last."""
    done = subprocess.run([sys.executable, __file__, *map(str, words)], stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, action="append", help="repeatable; three sizes if not said")
    parser.add_argument("--rate", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--indexes", action="store_true", help="compare indexes instead")
    parser.add_argument("--bundle", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bundle:
        print(json.dumps(measure(Path(os.environ["ENDCAP_HOME"]), args.bundle, args.rate, args.seconds)))
        return
    sizes = args.items or list(SIZES)
    if args.indexes:
        print("    items index and effort                recall@120   search")
        for n in sizes:
            indexes(n)
        return
    print(f"budget: p99 < {BUDGET_MS:g} ms at {args.rate}/s at every size")
    print("    items index   p50    p95    p99 ms  /s and core     x  cpu us by surface; memory; load; index")
    first = 0.0
    for n in sizes:
        with tempfile.TemporaryDirectory() as name:
            row, second = ask(Path(name), n, args.rate, args.seconds)
        cpu = float(np.mean(list(row["cpu_us"].values())))
        first = first or cpu
        figures = " ".join(f"{ms:6.2f}" for ms in row["ms"])
        surfaces = ", ".join(f"{surface} {us:.0f}" for surface, us in row["cpu_us"].items())
        told = f"{figures}   {row['per_core']:9.0f} {cpu / first:6.2f}  {surfaces}"
        print(f"{n:9,} {row['index']:<6}{told}; ", end="")
        tell(**{f"latency_p99_{n}": row["ms"][2]})
        if n == SIZES[-1]:
            tell(index_p95=row["search_ms"], index_recall=row["recall"])
        held = f"{row['resident_mb']:,.0f} MB, {second['own_mb']:,.0f} MB; {row['load_s']:.0f} s"
        print(f"{held}; search p95 {row['search_ms']:.2f} ms, recall@120 {row['recall']:.3f}", flush=True)


def ask(home: Path, n: int, rate: int, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures of a release of `n` items, and those of a second worker while nothing is built any more."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from shops.tiny_bundle import make  # torch, of which the measured process knows nothing

    os.environ["ENDCAP_HOME"] = str(home)
    like = make(home, 500, 300)
    path = release(home, like, n)
    options = "--bundle", path, "--rate", str(rate), "--seconds", str(seconds)
    return child(*options), child(*options)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
