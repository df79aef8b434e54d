"""What is computed beside an answer costs the answers: the same load without and with it, in turn.

    endcap promote --bundle FOLDER && endcap up && python benchmarks/slowdown.py [--rate 100] [--seconds 10]
    endcap up && python benchmarks/slowdown.py --rules FILE

The challenger that waits is computed beside every live answer, or that --share of them (`shadow.share` ships
a tenth); with --rules instead that file is tried out beside `serving.rules_shadow_share` of them. Rounds of
without and with; prints p50 and p99 of each, the ratio of their medians over the rounds, and how many
lists were made beside. Loopback only.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from load import MAX_RATE, MAX_SECONDS, Result, drive, loopback

from feature_repo.online.connection import connect
from feature_repo.params import load
from feature_repo.ports import service_url
from pipelines.release.aliases import act_of, waiting_challenger
from serving.beside import trial, tryout, understudy
from serving.beside.trial import ShadowParams
from serving.rules import published
from serving.rules.document import parse

READY_S = 60.0
LIMIT, SHOPPERS = 12, 1000
ACT = act_of("benchmarks/slowdown.py")


class Beside(NamedTuple):
    """What is computed: how it begins and ends, and the stream of its lists."""

    begin: Callable[[], object]
    end: Callable[[], object]
    lists: str


def of_release(redis: Any, share: float) -> Beside | None:
    """The challenger that waits; None where none does."""
    challenger = waiting_challenger()
    if challenger is None:
        return None
    params = replace(load("shadow", ShadowParams), share=share)
    return Beside(
        lambda: trial.begin(redis, challenger, params, ACT),
        lambda: trial.end(redis, ACT),
        understudy.SHADOWED,
    )


def of_rules(redis: Any, file: Path) -> Beside:
    """A draft of rules."""
    draft = parse(file.read_bytes())
    return Beside(
        lambda: published.set_shadow(redis, draft, ACT, published.read(redis)),
        lambda: published.set_shadow(redis, None, ACT, published.read(redis)),
        tryout.PAIRS,
    )


async def main() -> None:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--url", type=loopback, default=service_url())
    told.add_argument("--rules", type=Path)
    told.add_argument("--share", type=float, default=1.0)
    told.add_argument("--rate", type=int, default=100)
    told.add_argument("--seconds", type=float, default=10.0)
    told.add_argument("--rounds", type=int, default=3)
    args = told.parse_args()
    if args.rate > MAX_RATE or args.seconds > MAX_SECONDS:
        told.error(f"at most {MAX_RATE} requests/s for {MAX_SECONDS} s")
    redis: Any = connect()
    beside = of_rules(redis, args.rules) if args.rules else of_release(redis, args.share)
    if beside is None:
        told.error("no challenger waits; `endcap promote --bundle FOLDER` brings one")
    await drive(args.url, 50, 2.0, LIMIT, SHOPPERS)
    found: dict[str, list[Result]] = {"without": [], "with": []}

    def newest() -> bytes:
        entries = redis.xrevrange(beside.lists, count=1)
        return entries[0][0] if entries else b"0-0"

    first = newest()
    print(f"{'':8}    rate   done/s      p50      p95      p99      max  failed   (ms)")
    for _ in range(args.rounds):
        for name in found:
            if name == "with":
                before, until = newest(), time.monotonic() + READY_S
                beside.begin()
                while newest() == before and time.monotonic() < until:
                    await drive(args.url, 20, 1.0, LIMIT, SHOPPERS)  # until the workers hold it
            found[name].append(await drive(args.url, args.rate, args.seconds, LIMIT, SHOPPERS))
            print(f"{name:8}{found[name][-1].row()}", flush=True)
        beside.end()
    for what, q in (("p50", 0.5), ("p99", 0.99)):
        without, burdened = (statistics.median(one.quantile(q) for one in found[name]) for name in found)
        print(f"{what}: {without:.2f} ms without, {burdened:.2f} ms with, x{burdened / without:.2f}")
    print(f"{len(redis.xrange(beside.lists, min=b'(' + first)):,} lists were made beside")


if __name__ == "__main__":
    uvloop.run(main())
