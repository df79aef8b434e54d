"""How a running shop is: the age of each thing that its answers rest on, and what its Redis has lost."""

import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from redis import RedisError

from feature_repo.online import changes, newborns
from feature_repo.online.connection import ONCE, client
from feature_repo.online.newborns import NewbornParams
from feature_repo.params import load
from monitoring.alerting import lookout
from monitoring.alerting.troubles import AlarmParams
from serving.release import state

FEATURES, RELEASE = "features", "release pointer"
ANSWER_S = 2.0


@dataclass(frozen=True)
class Condition:
    """One thing: "fresh", "too old" by its age and limit (seconds), or "missing" with what to do."""

    name: str
    state: str
    age_s: float | None = None
    limit_s: float | None = None
    next: str | None = None

    def line(self) -> str:
        """As `endcap status` prints it."""
        if self.age_s is None:
            cause = "Redis is new, was emptied, or is another one"
            return f"{self.name}: {self.state}; {cause}. Next: {self.next}"
        return f"{self.name:<10} {self.state:<9} {self.age_s:6.1f} s old, at most {self.limit_s:g} s"


def ages(metrics_url: str) -> list[Condition]:
    """What the service says of itself, the worst of its workers; nothing where it does not answer."""
    try:
        with urllib.request.urlopen(metrics_url, timeout=ANSWER_S) as answer:
            text = answer.read().decode()
    except (OSError, ValueError):  # the process' own line says that it is not ready
        return []
    found: dict[str, dict[str, float]] = {"endcap_age_seconds": {}, "endcap_age_limit_seconds": {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in found:
                found[sample.name][sample.labels["thing"]] = sample.value
    by_thing, limits = found.values()
    return [
        Condition(thing, "fresh" if age <= limits[thing] else "too old", age, limits[thing])
        for thing, age in sorted(by_thing.items())
        if thing in limits
    ]


def beside(url: str) -> list[Condition]:
    """What the Redis at `url` knows of the jobs beside the service, and what it lacks."""
    silent_s = load("newborns", NewbornParams).silent_s
    return [*embedding(url, silent_s), *alarming(url, load("alarms", AlarmParams)), *missing(url)]


def embedding(url: str, silent_s: float) -> list[Condition]:
    """When `endcap embed` looked last; nothing where the Redis at `url` does not answer."""
    try:
        with client(url, socket_timeout=ANSWER_S, retry=ONCE) as redis:
            age_s = newborns.age_s(redis)
    except RedisError:
        return []
    if age_s is None:  # its own line says that it is not there
        return []
    return [Condition("new items", "fresh" if age_s <= silent_s else "too old", age_s, silent_s)]


def alarming(url: str, params: AlarmParams) -> list[Condition]:
    """When the console looked for trouble last; nothing where the Redis at `url` does not answer."""
    try:
        with client(url, socket_timeout=ANSWER_S, retry=ONCE) as redis:
            age_s = lookout.age_s(redis, params)
    except RedisError:
        return []
    limit_s = lookout.silent_s(params)
    return [Condition("alarms", "fresh" if age_s < limit_s else "too old", age_s, limit_s)]


def missing(url: str) -> list[Condition]:
    """What the Redis at `url` lacks; nothing where it does not answer."""
    try:
        with client(url, socket_timeout=ANSWER_S, retry=ONCE) as redis:
            held = {FEATURES: changes.marked(redis), RELEASE: bool(redis.exists(state.ROLLOUT))}
    except RedisError:
        return []
    jobs = {FEATURES: "materialize", RELEASE: "promote"}
    return [
        Condition(name, "missing", next=f"{changes.MEND}; in a new shop `endcap {jobs[name]}`")
        for name, there in held.items()
        if not there
    ]
