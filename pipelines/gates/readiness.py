"""What a release must show besides its evaluation: that it was replayed, and that its lift can be told."""

from collections.abc import Mapping
from typing import Any

import orjson
from redis import Redis

from feature_repo.files import read_json
from feature_repo.params import load
from feature_repo.places import PARITY, REPLAY, at
from pipelines.gates.bar import Check
from serving.release.router import HOLDOUT, RouterParams
from serving.release.state import EXPOSURES

_NEWEST = 20_000  # answers in which the holdout's shoppers are counted


def parity(digest: str) -> Check:
    """Whether `endcap replay` asked this release over HTTP, and whether it answered as offline.

    Not replayed is told and refuses nothing: the stage `replay` takes minutes, and no release waits for it.
    """
    reports = [
        read_json(at(place), "run `dvc repro replay`") for place in (PARITY, REPLAY) if at(place).exists()
    ]
    mine = next((report for report in reports if report.get("bundle") == digest), None)
    if mine is None:
        told = "it was not replayed; `dvc repro replay` does it"
        return Check("parity of the replay", 0.0, 1.0, told, judged=False)
    step = f"{PARITY} names the culprits; repair it and run `dvc repro replay`"
    return Check("parity of the replay", float(mine["passed"]), 1.0, _equal(mine), step=step)


def _equal(report: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{share:.3%} of the {name}" for name, share in report["shares"].items())
    asked = f"{report['asked']:,} questions: " if "asked" in report else ""
    return f"{asked}{shares} equal the offline ones"


def holdout(redis: Redis) -> Check:
    """Whether some shoppers get bestsellers for ever: without them nobody can say what a release is worth."""
    share = load("router", RouterParams).holdout_share
    if not share:
        told = "router.holdout_share is 0: no lift can be told; some 0.02 of all shoppers would do"
        return Check("active holdout", share, 0.001, told, judged=False)
    entries: Any = redis.xrevrange(EXPOSURES, count=_NEWEST)
    shown = [orjson.loads(fields[b"exposure"]) for _, fields in entries]
    shoppers = {one["unit"] for one in shown if one["arm"] == HOLDOUT}
    told = f"{len(shoppers):,} shoppers of it among the newest {len(shown):,} answers"
    return Check("active holdout", share, 0.001, told, judged=False)
