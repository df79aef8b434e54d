"""What a release in the shadow costs the answers beside it: the same load without and with it, in turn.

    endcap promote --bundle FOLDER && endcap up && python benchmarks/slowdown.py [--rate 100] [--seconds 10]

The challenger that waits is computed beside every live answer (share 1, ten times what `shadow.share` ships),
in rounds of without and with. Prints p50 and p99 of each, the ratio of their medians over the rounds, and how
many lists the shadow made. Loopback only.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

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

READY_S = 60.0
LIMIT, SHOPPERS = 12, 1000


async def main() -> None:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--url", type=loopback, default=service_url())
    told.add_argument("--rate", type=int, default=100)
    told.add_argument("--seconds", type=float, default=10.0)
    told.add_argument("--rounds", type=int, default=3)
    args = told.parse_args()
    if args.rate > MAX_RATE or args.seconds > MAX_SECONDS:
        told.error(f"at most {MAX_RATE} requests/s for {MAX_SECONDS} s")
    redis, challenger = connect(), waiting_challenger()
    if challenger is None:
        told.error("no challenger waits; `endcap promote --bundle FOLDER` brings one")
    params, act = replace(load("shadow", ShadowParams), share=1.0), act_of("benchmarks/slowdown.py")
    await drive(args.url, 50, 2.0, LIMIT, SHOPPERS)

    def made() -> int:
        return measure(redis, challenger.digest).pairs

    found: dict[str, list[Result]] = {"without": [], "with": []}
    print(f"{'':8}    rate   done/s      p50      p95      p99      max  failed   (ms)")
    for _ in range(args.rounds):
        for name in found:
            if name == "with":
                before, until = made(), time.monotonic() + READY_S
                trial.begin(redis, challenger, params, act)
                while made() == before and time.monotonic() < until:
                    await drive(args.url, 20, 1.0, LIMIT, SHOPPERS)  # until the workers hold it
            found[name].append(await drive(args.url, args.rate, args.seconds, LIMIT, SHOPPERS))
            print(f"{name:8}{found[name][-1].row()}", flush=True)
            trial.end(redis, act)
    for what, q in (("p50", 0.5), ("p99", 0.99)):
        without, beside = (statistics.median(one.quantile(q) for one in found[name]) for name in found)
        print(f"{what}: {without:.2f} ms without, {beside:.2f} ms with, x{beside / without:.2f}")
    print(f"{made():,} lists were made in the shadow")


if __name__ == "__main__":
    uvloop.run(main())
