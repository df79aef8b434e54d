"""What a person must hear of, each with its numbers and the command to run next.

A look that cannot be taken (Redis or the service away, a report half written) raises: it says neither that
there is trouble nor that it is over.
"""

import json
import math
import shutil
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from feature_repo.clock import SECOND_US
from feature_repo.files import is_reserved
from feature_repo.places import RETRAINED, REWRITING
from monitoring.experiment.guard import RolloutParams, burnt_in
from monitoring.experiment.sequential import ArmStatistics, Interval, compare
from serving.release import state

TAKEN_BACK = ("rollback", "revert_to_previous")  # in the audit
AT_WORK = "at work"
NO_RELEASE = {  # how a retrain stands that brought none (yet) -> what to run next
    "failed": "endcap retrain",
    "refused by the gate": "endcap gate",
    "refused in the shadow": "endcap shadow report",
    AT_WORK: "endcap retrain",
}
BEHIND = "endcap_stream_behind_seconds"
ANSWER_S = 2.0
MIB = 1 << 20


@dataclass(frozen=True)
class Trouble:
    """`thing` names it as long as it lasts; `told`: what happened, on what numbers; `next`: a command."""

    thing: str
    told: str
    next: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


Look = Callable[[], list[Trouble]]


@dataclass(frozen=True)
class AlarmParams:
    """Section `alarms` of params.yaml."""

    every_s: float
    over_s: float
    first_retry_s: float
    longest_retry_s: float
    tries: int
    rollback_s: float
    behind_s: float
    unseen_share: float
    drifted_share: float
    alpha: float
    tightest_error: float
    min_free_mib: int


def rolled_back(redis: Redis, newest_s: float) -> list[Trouble]:
    """The newest change of the rollout took a release back, not longer ago than `newest_s`."""
    changes = [entry for entry in state.read_audit(redis, 200) if entry["version"] is not None]
    seconds, _ = redis.time()  # type: ignore[misc]
    if not changes or changes[0]["what"] not in TAKEN_BACK:
        return []
    entry = changes[0]
    if seconds - entry["at_us"] / SECOND_US > newest_s:
        return []
    back = entry["what"] == "revert_to_previous"
    what = f"back to {entry['release']}" if back else f"{entry['release']} is no canary any more"
    told = f"rollback by {entry['who']}: {what}; {entry['why']}"
    numbers = {"version": entry["version"], "release": entry["release"], **entry["numbers"]}
    return [Trouble(f"rollback {entry['version']}", told, "endcap rollout history --last 3", numbers)]


def not_retrained(run_dir: Path) -> list[Trouble]:
    """The last retrain brought no release, or was killed; `run_dir`: run/SHOP."""
    if not (summary := run_dir / RETRAINED).exists():
        return []
    at_work = is_reserved(run_dir / REWRITING)  # asked first: one that ends meanwhile has written how
    found = orjson.loads(summary.read_bytes())
    if found["outcome"] not in NO_RELEASE or (found["outcome"] == AT_WORK and at_work):
        return []
    told = f"retrain: {found['outcome']}; {found['told']}"
    if found["outcome"] == AT_WORK:
        told = f"retrain: killed; at work {found['told']}, and gone. The champion serves on"
    numbers = {name: found[name] for name in ("ndcg_at_12", "events", "seconds", "champion", "candidate")}
    return [Trouble("retrain", told, NO_RELEASE[found["outcome"]], numbers)]


def behind(metrics_url: str, limit_s: float) -> list[Trouble]:
    """Consumers are further behind than `limit_s`, by the service's own metrics."""
    with urllib.request.urlopen(metrics_url, timeout=ANSWER_S) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        lag = {
            sample.labels["group"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == BEHIND
        }
    worst = max(lag, key=lambda group: lag[group], default="")
    if not worst or lag[worst] <= limit_s:
        return []
    told = f"consumers: the oldest event in no row of {worst} waits {lag[worst]:.0f} s, limit {limit_s:g} s"
    return [Trouble("consumers", told, "endcap up stream", {"behind_s": lag, "limit_s": limit_s})]


def unseen(report: Path, limit: float) -> list[Trouble]:
    """More than the share `limit` of the products could be sold and was shown to nobody."""
    if not report.exists():
        return []
    found = orjson.loads(report.read_bytes())
    share = found["could_be_sold"] / max(1, found["products"])
    if share <= limit:
        return []
    told = (
        f"unseen: {found['could_be_sold']:,} of {found['products']:,} products could be sold and were shown "
        f"to nobody for {found['hours']:g} hours ({share:.0%}, limit {limit:.0%})"
    )
    numbers = {name: found[name] for name in ("now", "products", "unseen", "could_be_sold", "causes")}
    return [Trouble("unseen", told, "endcap unseen", numbers)]


def drifted(report: Path, limit: float) -> list[Trouble]:
    """More than the share `limit` of the features moved."""
    if not report.exists():
        return []
    found = orjson.loads(report.read_bytes())
    if found["share_drifted"] <= limit:
        return []
    moved = sorted(column["name"] for column in found["columns"] if column["drifted"])
    many = f"{len(moved)} of {len(found['columns'])} features moved"
    told = f"drift: {many} (limit {limit:.0%}): {', '.join(moved)}"
    numbers = {"share": found["share_drifted"], "answers": found["answers_live"], "moved": moved}
    return [Trouble("drift", told, "endcap retrain", numbers)]


def lift(
    champion: ArmStatistics, holdout: ArmStatistics, params: AlarmParams, rollout: RolloutParams
) -> Interval | None:
    """Relative difference of the champion's CTR from the holdout's, for all looks; None: too early."""
    if not burnt_in(champion, holdout, rollout):
        return None
    found = compare(champion, holdout, 0.0, params.alpha, params.tightest_error)
    return found if math.isfinite(found.upper) else None


def no_lift(
    champion: ArmStatistics, holdout: ArmStatistics, params: AlarmParams, rollout: RolloutParams
) -> list[Trouble]:
    """Bestsellers are credibly clicked more than the champion's lists, at any number of looks."""
    found = lift(champion, holdout, params, rollout)
    if found is None or not found.upper < 0:
        return []
    low, high = max(float(found.lower), -1.0), float(found.upper)
    told = (
        f"holdout: CTR {float(champion.ctr):.2%} of the champion, {float(holdout.ctr):.2%} of bestsellers, "
        f"lift {float(found.estimate):+.1%} [{low:+.1%}, {high:+.1%}]"
    )
    numbers = {"lift": float(found.estimate), "lower": low, "upper": high}
    return [Trouble("holdout", told, "endcap rollback", numbers)]


def disk_full(folder: Path, min_free_mib: int, free: Callable[[Path], int] | None = None) -> list[Trouble]:
    """Less than `min_free_mib` is left where the shop's files lie."""
    left = (free or (lambda place: shutil.disk_usage(place).free))(folder) // MIB
    if left >= min_free_mib:
        return []
    told = f"disk: {left:,} MiB are left, limit {min_free_mib:,} MiB"
    return [Trouble("disk", told, "endcap prune --dry-run", {"free_mib": left, "limit_mib": min_free_mib})]


def of_file(file: Path, look: Callable[[Path], list[Trouble]]) -> Look:
    """`look` at `file`, which is read only when it was written anew: a report may hold megabytes."""
    held: list[Any] = [None, []]

    def again() -> list[Trouble]:
        written = file.stat().st_mtime_ns if file.exists() else None
        if held[0] != written:
            held[:] = [written, look(file)]
        found: list[Trouble] = held[1]
        return found

    return again


def as_json(trouble: Trouble) -> dict[str, Any]:
    """Plain values alone, and no number that JSON lacks."""
    numbers: dict[str, Any] = json.loads(orjson.dumps(dict(trouble.numbers), option=orjson.OPT_NON_STR_KEYS))
    return {"thing": trouble.thing, "told": trouble.told, "next": trouble.next, "numbers": numbers}
