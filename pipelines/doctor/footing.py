"""How a deployment stands: what it is made of and serves, how old that is, who watches, what room is left."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis import Redis

from feature_repo.assemble.schema import schema_hash
from feature_repo.errors import ParamsError
from feature_repo.eventlog import keys
from feature_repo.eventlog.open import open_log
from feature_repo.params import load, revision, root, shop
from feature_repo.places import DATA, at
from feature_repo.ports import redis_url, service_url, stack_params
from monitoring.alerting.troubles import MIB, AlarmParams
from pipelines.doctor.finding import MUST, NOTE, OK, WARN, Finding, judged
from pipelines.local import condition
from pipelines.local.fleet import fleet
from pipelines.local.stack import programs
from serving.live.disk import redis_folder
from serving.live.pulse import NEXT
from serving.params import Serving
from serving.release import state
from serving.release.looks import guard_age_s
from serving.release.router import RouterParams

WATCHED = ("stream", "embed", "rails", "guard")  # they leave a sign of life in Redis, wherever they run
MENDED_BY = {**NEXT, "new items": "endcap up embed", "alarms": "endcap up console"}
MOST_PARTITIONS = 1024  # that are looked for
EDGE = Path("deploy/edge/endcap.conf")
AFTER = re.compile(r"stale-while-revalidate=(\d+), stale-if-error=(\d+)")


def code(_: Redis) -> Iterator[Finding]:
    """This machine's."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("code", OK, f"revision {(revision() or 'unknown')[:12]}, Python {python}")


def releases(redis: Redis) -> Iterator[Finding]:
    """What the workers serve, and whether this code reads what it is made of."""
    row, lines = fleet(redis_url()) or ({"state": "not ready", "workers": []}, [])
    step = "endcap rollout status" if row["workers"] else "endcap up service"
    for line in lines:
        yield judged("workers", row["state"] == "ready" or " serve " in line, line, "", step)
    held = state.read(redis)
    for name, release in (("champion", held and held.champion), ("challenger", held and held.challenger)):
        if release:
            manifest = release.manifest() or {}
            made = ((manifest.get("revision") or {}).get("git") or "unknown")[:12]
            right = manifest.get("schema") == schema_hash()
            value = f"{release.digest}, {f'made by {made}' if right else 'of another schema'}"
            step = "endcap retrain" if manifest else "put its folder back"
            yield judged(name, right, value if manifest else f"{release.path} is gone", "", step)


def service_ages(_: Redis) -> Iterator[Finding]:
    """What the service says of itself."""
    if not (things := condition.ages(f"{service_url()}/metrics")):
        value = f"none at {service_url()} in {condition.ANSWER_S:g} s"
        yield Finding("service", MUST, value, next="endcap up service")
    yield from _aged("service's ages", things)


def shop_ages(_: Redis) -> Iterator[Finding]:
    """What Redis knows of the jobs beside the service, and what it lacks."""
    yield from _aged("jobs' ages", condition.beside(redis_url()))
    found = programs(stack_params(), shop().run_dir())
    for name in WATCHED:
        lives = found[name].ready()
        yield judged(name, lives, "lives" if lives else "no sign of life", "", f"endcap up {name}")


def _aged(name: str, things: list[condition.Condition]) -> Iterator[Finding]:
    fresh = [thing for thing in things if thing.state == "fresh"]
    for thing in things:
        if thing.age_s is None:
            yield Finding(thing.name, MUST, thing.state, next=(thing.next or "").partition(";")[0].strip("`"))
        elif thing not in fresh:
            step = MENDED_BY.get(thing.name, "/readyz tells why")
            yield Finding(thing.name, MUST, f"{thing.age_s:.0f} s old", f"{thing.limit_s:g} s", step)
    if fresh:
        near = max(fresh, key=lambda thing: (thing.age_s or 0) / (thing.limit_s or 1))
        value = f"{len(fresh)} fresh, nearest its limit {near.name}: {near.age_s:.1f} s"
        yield Finding(name, OK, value, f"{near.limit_s:g} s")


def holdout(_: Redis) -> Iterator[Finding]:
    """Without one nobody can say what the lists are worth."""
    share = load("router", RouterParams).holdout_share
    yield judged("holdout", share > 0, f"{share:.1%}", "more than 0", "set router.holdout_share", WARN)


def canary(redis: Redis) -> Iterator[Finding]:
    """A guard must watch it, and nobody may foresee who gets it."""
    if (held := state.read(redis)) is None or held.challenger is None:
        yield Finding("canary", OK, "none is on")
        return
    age_s, limit_s = guard_age_s(redis), held.guard_timeout_s
    value = f"{held.percent} %, " + ("no guard" if age_s is None else f"guard looked {age_s:.0f} s ago")
    right = age_s is not None and age_s <= limit_s
    yield judged("canary", right, value, f"{limit_s:g} s", "endcap up guard")
    value = f"{len(held.salt)} characters"
    yield judged("salt", len(held.salt) >= 16, value, "16 at random", "endcap rollout stop")


def partitions(redis: Redis) -> Iterator[Finding]:
    """Entries of the log in partitions that no consumer reads any more, or that Kafka lacks."""
    params, thing = load("stream", keys.StreamParams), "stream.partitions"
    wanted = params.partitions
    if keys.kafka_topic(params):
        try:
            open_log(redis, params).check()
            yield Finding(thing, OK, f"{wanted}, and the topic has them")
        except (OSError, ParamsError) as error:
            yield Finding(thing, MUST, f"{wanted}: {error}", next="start it, or add partitions")
        return
    with redis.pipeline(transaction=False) as pipe:
        for key in keys.stream_keys(MOST_PARTITIONS):
            pipe.exists(key)
        there = [p for p, found in enumerate(pipe.execute()) if found]
    waits = [p for p in there if p >= wanted and not _applied(redis, p)]
    most = max(there, default=-1) + 1
    value = f"{wanted}, {'more hold entries' if waits else f'the log has {most}'}"
    yield judged(thing, not waits, value, f"{most} on" if waits else "", "raise it")


def _applied(redis: Any, partition: int) -> bool:
    """Whether every group has the newest entry of a partition in its rows."""
    end = redis.xrevrange(keys.stream_key(partition), count=1)
    reached = redis.hmget(keys.APPLIED, [keys.applied_field(group, partition) for group in keys.GROUPS])
    return not end or all(keys.order(position) >= keys.order(end[0][0]) for position in reached)


def disks(_: Redis) -> Iterator[Finding]:
    """Room where the shop's files lie, and where the embedded Redis writes."""
    least, kept = load("alarms", AlarmParams).min_free_mib, redis_folder()
    wanted = [("data", at(DATA), least, "endcap prune")]
    wanted += [("logs", shop().run_dir() / "logs", least, "endcap retain")]
    if kept:
        wanted += [("redis", kept, load("serving", Serving).min_free_mib, "make room")]
    else:
        yield Finding("disk of redis", NOTE, "another server's, not seen from here: watch it there")
    for name, place, limit, step in wanted:
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        free = shutil.disk_usage(there).free // MIB
        yield judged(f"disk of {name}", free >= limit, f"{free:,} MiB", f"{limit:,} MiB on", step)


def edge(_: Redis) -> Iterator[Finding]:
    """How old a list may be that a cache in front shows to anybody (the table of docs/deploy.md)."""
    file = root() / EDGE
    if not file.exists() or not (found := AFTER.search(file.read_text())):
        yield Finding("edge", NOTE, f"no {EDGE} here, a cache in front knows")
        return
    kept = load("serving", Serving).edge_ttl_s
    rarely, away = (kept + int(seconds) for seconds in found.groups())
    yield Finding("edge", OK, f"shared lists are up to {rarely} s old, {away:,} s while the service fails")
