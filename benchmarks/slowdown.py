"""What is computed beside an answer costs the answers: the same load without and with it, in turn.

    endcap promote --bundle FOLDER && endcap up && python benchmarks/slowdown.py [--rate 100] [--seconds 10]
    endcap up && python benchmarks/slowdown.py --rules FILE

The challenger that waits is computed beside every live answer (share 1, ten times what `shadow.share` ships);
with --rules instead that file is tried out beside the share that ships (`serving.rules_shadow_share`). Rounds
of without and with; prints p50 and p99 of each, the ratio of their medians over the rounds, and how many
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
from monitoring.shadow.pairing import measure
from pipelines.release.aliases import act_of, waiting_challenger
from serving.beside import trial
from serving.beside.trial import ShadowParams
from serving.beside.tryout import PAIRS
from serving.rules import published
from serving.rules.document import parse

READY_S = 60.0
LIMIT, SHOPPERS = 12, 1000
ACT = act_of("benchmarks/slowdown.py")


class Beside(NamedTuple):
    """What is computed: how it begins and ends, and how many lists it has made."""

    begin: Callable[[], object]
    end: Callable[[], object]
    made: Callable[[], int]


def of_release(redis: Any) -> Beside | None:
    """The challenger that waits; None where none does."""
    challenger = waiting_challenger()
    if challenger is None:
        return None
    params = replace(load("shadow", ShadowParams), share=1.0)
    return Beside(
        lambda: trial.begin(redis, challenger, params, ACT),
        lambda: trial.end(redis, ACT),
        lambda: measure(redis, challenger.digest).pairs,
    )


def of_rules(redis: Any, file: Path) -> Beside:
    """A draft of rules."""
    draft = parse(file.read_bytes())
    return Beside(
        lambda: published.set_shadow(redis, draft, ACT, published.read(redis)),
        lambda: published.set_shadow(redis, None, ACT, published.read(redis)),
        lambda: int(redis.xinfo_stream(PAIRS)["entries-added"]) if redis.exists(PAIRS) else 0,
    )


async def main() -> None:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--url", type=loopback, default=service_url())
    told.add_argument("--rules", type=Path)
    told.add_argument("--rate", type=int, default=100)
    told.add_argument("--seconds", type=float, default=10.0)
    told.add_argument("--rounds", type=int, default=3)
    args = told.parse_args()
    if args.rate > MAX_RATE or args.seconds > MAX_SECONDS:
        told.error(f"at most {MAX_RATE} requests/s for {MAX_SECONDS} s")
    redis = connect()
    beside = of_rules(redis, args.rules) if args.rules else of_release(redis)
    if beside is None:
        told.error("no challenger waits; `endcap promote --bundle FOLDER` brings one")
    await drive(args.url, 50, 2.0, LIMIT, SHOPPERS)
    found: dict[str, list[Result]] = {"without": [], "with": []}
    first = beside.made()
    print(f"{'':8}    rate   done/s      p50      p95      p99      max  failed   (ms)")
    for _ in range(args.rounds):
        for name in found:
            if name == "with":
                before, until = beside.made(), time.monotonic() + READY_S
                beside.begin()
                while beside.made() == before and time.monotonic() < until:
                    await drive(args.url, 20, 1.0, LIMIT, SHOPPERS)  # until the workers hold it
            found[name].append(await drive(args.url, args.rate, args.seconds, LIMIT, SHOPPERS))
            print(f"{name:8}{found[name][-1].row()}", flush=True)
        beside.end()
    for what, q in (("p50", 0.5), ("p99", 0.99)):
        without, burdened = (statistics.median(one.quantile(q) for one in found[name]) for name in found)
        print(f"{what}: {without:.2f} ms without, {burdened:.2f} ms with, x{burdened / without:.2f}")
    print(f"{beside.made() - first:,} lists were made beside")


if __name__ == "__main__":
    uvloop.run(main())
