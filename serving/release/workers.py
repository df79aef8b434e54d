"""What each worker says it serves: `endcap:workers` names them, `endcap:worker:<name>` is one's own report.

A report ends by itself when its worker falls silent, so whoever reads them sees the living. "Done" of a
release is what they say, not what `endcap:rollout` asks for.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import orjson
from redis import Redis

from feature_repo.clock import instant
from feature_repo.online.changes import applied_ts
from serving.release.state import RolloutState

WORKERS, WORKER = "endcap:workers", "endcap:worker:"
NAMES_S = 86_400  # the set of names outlives its last worker by this


@dataclass(frozen=True)
class Report:
    """One worker: what it serves, and the state (`version`) that it acted on last, 0 before the first.

    `champion` and `challenger` are digests, "" for none; `since_us` is when it began to serve its champion;
    `loading` is what it reads from disk just now; `refused` holds digest -> why it is not served.
    """

    worker: str  # host:pid
    version: int = 0
    champion: str = ""
    challenger: str = ""
    since_us: int = 0
    loading: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    replays: bool = False  # the clock is the data's

    def serves(self, state: RolloutState) -> bool:
        """Champion and challenger are those that `state` names."""
        wanted = state.challenger.digest if state.challenger else ""
        return (self.champion, self.challenger) == (state.champion.digest, wanted)

    def line(self) -> str:
        """For a person: who, what, and what is in the way."""
        told = f"{self.worker} serves {self.champion or 'nothing'}"
        told += f" and, on trial, {self.challenger}" if self.challenger else ""
        told += f" (version {self.version})"
        told += f", is loading {self.loading}" if self.loading else ""
        return told + "".join(f"; refuses {digest}: {why}" for digest, why in self.refused.items())


def write(redis: Redis, report: Report, silent_s: float) -> None:
    """Tell; the report is gone after `silent_s` seconds without another."""
    pipe = redis.pipeline(transaction=False)
    pipe.set(WORKER + report.worker, orjson.dumps(asdict(report)), px=round(1000 * silent_s))
    pipe.sadd(WORKERS, report.worker)
    pipe.expire(WORKERS, NAMES_S)
    pipe.execute()


def leave(redis: Redis, worker: str) -> None:
    """A worker that ends in order is missed at once."""
    redis.delete(WORKER + worker)
    redis.srem(WORKERS, worker)


def read(redis: Redis) -> list[Report]:
    """The reports of the living, by name; names whose report has ended are forgotten."""
    members: Any = redis.smembers(WORKERS)
    names = sorted(name.decode() if isinstance(name, bytes) else str(name) for name in members)
    if not names:
        return []
    texts: Any = redis.mget([WORKER + name for name in names])
    silent = [name for name, text in zip(names, texts, strict=True) if text is None]
    if silent:
        redis.srem(WORKERS, *silent)  # one that only paused names itself again with its next report
    return [_report(orjson.loads(text)) for text in texts if text is not None]


def _report(told: Mapping[str, Any]) -> Report:
    """Also of a worker of another version, which may tell more."""
    return Report(**{one.name: told[one.name] for one in fields(Report) if one.name in told})


def now(redis: Redis) -> int:
    """The instant by which the workers answer, us: of the wall clock, or, where they replay, of the data."""
    replay = any(report.replays for report in read(redis))
    return (replay and applied_ts(redis)) or time.time_ns() // 1000


def summary(reports: Sequence[Report], state: RolloutState | None) -> list[str]:
    """Lines for `endcap status`: how many workers serve what since when, and each that does not as asked."""
    if not reports:
        return ["no worker reports: the service is down, or has just been started"]
    if state is None:
        return [f"{len(reports)} up, nothing was ever promoted"]
    right = [report for report in reports if report.serves(state)]
    lines = []
    if right:
        since = instant(max(report.since_us for report in right))
        trial = f", {state.challenger.digest} to {state.percent} %" if state.challenger else ""
        lines = [
            f"{len(right)} of {len(reports)} serve {state.champion.digest}{trial} "
            f"(version {state.version}) since {since:%Y-%m-%d %H:%M:%S} UTC"
        ]
    return lines + [report.line() for report in reports if not report.serves(state)]
