"""What merchandising rules cost an answer: the same requests with and without 200 rules, in turn, in one run.

    python benchmarks/rules.py [--rules 200] [--items 12000] [--requests 3000]

Prints p50 and p99 of serving.pipeline.recommend and of what the rules add (CPU time of this thread, so that
other programs of the machine do not count), their ratio, and the milliseconds of one compilation. The budget
is .3 ms of p99. One bundle of random parts, twenty contexts of page, device and country.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from shops import tiny_bundle

from feature_repo.events import DEVICES, SURFACES
from serving import pipeline
from serving.release import bundle
from serving.rules.compiled import Compiled
from serving.rules.document import Document, parse
from serving.types import Context, Request

NOW = 1_700_000_000_000_000
COUNTRIES = ("Germany", "France", "Austria", "Poland", "Italy")


def rules(n: int, items: int, rng: random.Random) -> Document:
    """`n` rules of every kind, two in three for all lists."""
    kinds: list[Any] = [
        lambda: {
            "boost": {
                "where": {"brand": [f"brand {rng.randrange(7)}"], "price": {"from": rng.randrange(60)}},
                "factor": rng.choice([0.5, 1.5]),
            }
        },
        lambda: {"block": {"where": {"item_id": [f"item-{rng.randrange(items)}" for _ in range(20)]}}},
        lambda: {"pin": {"items": [f"item-{rng.randrange(items)}"], "slots": [rng.randrange(12)]}},
        lambda: {"floor": {"margin": 0.05 + rng.random() / 10}},
        lambda: {"at_most": {"per": rng.choice(["brand", "category"]), "slots": rng.randrange(3, 6)}},
    ]
    whens = [
        {},
        {},
        {
            "surface": [rng.choice(SURFACES)],
            "device": [rng.choice(DEVICES)],
            "country": [rng.choice(COUNTRIES)],
        },
    ]
    found = [{"id": f"r{at}", "when": whens[at % 3], "do": kinds[at % len(kinds)]()} for at in range(n)]
    return parse(orjson.dumps({"rules": found}))


def main() -> None:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rules", 200), ("items", 12_000), ("requests", 3_000)):
        told.add_argument(f"--{name}", type=int, default=default)
    options = told.parse_args()
    rng = random.Random(3)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ENDCAP_HOME"] = folder
        release = bundle.load(tiny_bundle.make(Path(folder), options.items, trees=300))
    items = tiny_bundle.matrix(tiny_bundle.catalogue(options.items))
    document = rules(options.rules, options.items, rng)
    began = time.thread_time()
    compiled = Compiled(document, items, NOW)
    compiled.warm(None, NOW)
    compiling = time.thread_time() - began
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for n in range(options.requests + 200):
        context = Context(device=DEVICES[n % 3], country=COUNTRIES[n % 5])
        request = Request(SURFACES[n % 4], session_id=f"s{n}", context=context)
        visitor = pipeline.visitor_of(request, NOW, None, None)
        for name in ("without", "with") if n % 2 else ("with", "without"):
            began = time.thread_time()
            more = (compiled.steering(request, NOW),) if name == "with" else ()
            pipeline.recommend(request, release, visitor, items, *more)
            if n >= 200:  # the first ones warm up
                seconds[name].append(time.thread_time() - began)
    p = {name: np.percentile(np.array(values) * 1000, (50, 99)) for name, values in seconds.items()}
    added = p["with"] - p["without"]
    print(f"{options.rules} rules, {options.items:,} items, {options.requests:,} requests; ms of CPU time")
    print(f"  without   p50 {p['without'][0]:.3f}  p99 {p['without'][1]:.3f}")
    print(f"  with      p50 {p['with'][0]:.3f}  p99 {p['with'][1]:.3f}")
    print(
        f"  added     p50 {added[0]:.3f}  p99 {added[1]:.3f}"
        f"  ratio of p99 {p['with'][1] / p['without'][1]:.2f}"
    )
    print(f"  compiled in {1000 * compiling:.0f} ms")


if __name__ == "__main__":
    main()
