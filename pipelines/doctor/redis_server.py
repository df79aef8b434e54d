"""The Redis of a deployment: whether it answers, its version and clock, what it keeps over a crash."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis, RedisError
from redis.exceptions import AuthenticationError, NoPermissionError

from feature_repo.params import load
from feature_repo.ports import embedded_redis_url, redis_url, without_password
from pipelines.doctor.finding import MUST, NOTE, WARN, Finding, judged

ASKED = 5  # times for its clock: the quickest answer tells it best
LAST = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")


@dataclass(frozen=True)
class DoctorParams:
    """Section `doctor` of params.yaml."""

    redis_at_least: str
    max_skew_s: float


def away(redis: Redis) -> Finding | None:
    """Why nothing can be asked of it; None where it answers and has read what it kept."""
    where = without_password(redis_url())
    try:
        told: Any = redis.info("persistence")
    except (AuthenticationError, NoPermissionError) as error:
        return Finding("redis", MUST, f"{where}: {error}", next="mend the password in REDIS_URL")
    except RedisError:
        step = "endcap up redis" if redis_url() == embedded_redis_url() else "start it (REDIS_URL)"
        return Finding("redis", MUST, f"none at {where}", next=step)
    if told.get("loading"):
        value = f"{where} loads its data, {float(told.get('loading_loaded_perc', 0)):.0f} %"
        return Finding("redis", MUST, value, next="wait")
    return None


def version(redis: Redis) -> Iterator[Finding]:
    """Of the server; Valkey also tells the version of Redis that it takes the place of."""
    least, told = load("doctor", DoctorParams).redis_at_least, _info(redis)
    found, ours = (tuple(map(int, re.findall(r"\d+", text))) for text in (told["redis_version"], least))
    value = told["redis_version"] + (f", valkey {told['valkey_version']}" if "valkey_version" in told else "")
    yield judged("redis-server", found >= ours, value, f"{least} on", "install a newer one")


def clock(redis: Redis, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """How far it is from this machine's, as far as the time of an answer lets one say."""
    limit_s, answers = load("doctor", DoctorParams).max_skew_s, []
    for _ in range(ASKED):
        asked = now()
        seconds, micros = redis.time()  # type: ignore[misc]
        heard = now()
        answers.append((abs(heard - asked), seconds + micros / 1e6 - (asked + heard) / 2))
    took_s, ahead_s = min(answers)
    value = f"Redis is {abs(ahead_s):.3f} s {'ahead' if ahead_s > 0 else 'behind'}"
    yield judged("clock", abs(ahead_s) - took_s / 2 <= limit_s, value, f"{limit_s:g} s", "run chrony on both")


def persistence(redis: Redis) -> Iterator[Finding]:
    """What is lost when it is killed, and what it forgets or refuses when it is full."""
    told, settings = _info(redis), _settings(redis)
    value = "yes" if told.get("aof_enabled") else "no"
    yield judged("appendonly", value == "yes", value, "yes", "set appendonly yes")
    if {"appendfsync", "save"} <= settings.keys():
        value = settings["appendfsync"]
        yield judged("appendfsync", value != "everysec", value, "no, always", "set appendfsync no", WARN)
        value = settings["save"].strip('"') or "never"
        yield judged("save", value == "never", value, "never", 'set save ""', WARN)
    else:
        yield Finding("appendfsync, save", NOTE, "not told: CONFIG is closed, its file is not here")
    policy, most = told["maxmemory_policy"], int(told["maxmemory"])
    value, worst = (f"{policy}, {most / 2**20:,.0f} MiB", MUST) if most else (policy, WARN)
    yield judged("maxmemory-policy", policy == "noeviction", value, "noeviction", "set it", worst)
    failed = [name for name in LAST if told.get(name, "ok") != "ok"]
    yield judged("last write", not failed, failed[0] if failed else "ok", "ok", "its log tells")


def _settings(redis: Redis) -> dict[str, str]:
    """CONFIG GET, else the file that the server names, where it is on this machine; else nothing."""
    with suppress(RedisError):  # renamed away, as by `endcap up`, or closed by who hosts it
        found: Any = redis.config_get("*")
        return dict(found)
    with suppress(OSError, UnicodeDecodeError):
        lines = Path(_info(redis).get("config_file") or "none").read_text().splitlines()
        return {name: value for name, _, value in (line.partition(" ") for line in lines)}
    return {}


def _info(redis: Redis) -> dict[str, Any]:
    told: Any = redis.info()
    return dict(told)
