"""A primary, its replicas and three sentinels: real processes of redis-server, each on a port of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from redis import Redis, RedisError
from shops.service import free_port, stop

from feature_repo.online.connection import ONCE
from pipelines.local.stack import DURABLE, redis_server

NAME, PASSWORD, SENTINEL_PASSWORD = "mymaster", "of-redis", "of-sentinels"
DOWN_MS = 2000  # a primary that is silent for so long is down
PATIENCE_S = 60.0
REDIS = f"""
bind 127.0.0.1
requirepass {PASSWORD}
masterauth {PASSWORD}
repl-diskless-sync yes
repl-diskless-sync-delay 0
repl-ping-replica-period 1
min-replicas-max-lag 2
"""
SENTINEL = f"""
bind 127.0.0.1
requirepass {SENTINEL_PASSWORD}
sentinel sentinel-pass {SENTINEL_PASSWORD}
"""


@dataclass
class Group:
    """Ports of the Redis servers and of the sentinels; `primary` is who is it by the word of a sentinel."""

    folder: Path
    ports: list[int]
    sentinels: list[int]
    least: int  # min-replicas-to-write
    processes: dict[int, psutil.Popen] = field(default_factory=dict)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"redis+sentinel://:{PASSWORD}@{hosts}/{NAME}/0?sentinel_password={SENTINEL_PASSWORD}"

    def url_of(self, port: int) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{port}/0"

    def redis(self, port: int | None = None) -> Redis:
        """A client of one server, by default of who is the primary now."""
        return Redis(port=port or self.primary(), password=PASSWORD, socket_timeout=2, retry=ONCE)

    def sentinel(self, port: int) -> Redis:
        return Redis(port=port, password=SENTINEL_PASSWORD, socket_timeout=2, retry=ONCE)

    def primary(self) -> int:
        """The port that most sentinels name and that says itself that it is the primary."""

        def found() -> int | None:
            named = [self.sentinel(port).sentinel_get_master_addr_by_name(NAME)[1] for port in self.sentinels]
            (port,) = set(named)
            return port if self.role(port) == "master" else None

        return int(patiently(found))

    def role(self, port: int) -> str:
        with Redis(port=port, password=PASSWORD, socket_timeout=2, retry=ONCE) as redis:
            return str(redis.info("replication")["role"])

    def start(self, port: int, replica_of: int | None = None) -> None:
        """A server begins, or begins again with the file and the settings that it had."""
        home = self.folder / str(port)
        home.mkdir(exist_ok=True)
        if not (home / "redis.conf").exists():
            said = f"{REDIS}port {port}\ndir {home}\nmin-replicas-to-write {self.least}\n"
            said += f"replicaof 127.0.0.1 {replica_of}\n" if replica_of else ""
            pairs = zip(DURABLE[::2], DURABLE[1::2], strict=True)
            said += "".join(f"{name[2:]} {value or chr(34) * 2}\n" for name, value in pairs)
            (home / "redis.conf").write_text(said)
        self.processes[port] = self._run(home / "redis.conf")

    def start_sentinel(self, port: int) -> None:
        """Likewise of a sentinel, which writes into its settings what it learns."""
        home = self.folder / str(port)
        home.mkdir(exist_ok=True)
        watched = (
            f"monitor {NAME} 127.0.0.1 {self.ports[0]} 2",
            f"auth-pass {NAME} {PASSWORD}",
            f"down-after-milliseconds {NAME} {DOWN_MS}",
            f"failover-timeout {NAME} 6000",
        )
        lines = "".join(f"sentinel {line}\n" for line in watched)
        if not (home / "sentinel.conf").exists():
            (home / "sentinel.conf").write_text(f"{SENTINEL}port {port}\ndir {home}\n{lines}")
        self.processes[port] = self._run(home / "sentinel.conf", "--sentinel")

    def _run(self, *arguments: Any) -> psutil.Popen:
        with (arguments[0].parent / "log").open("ab") as log:
            return psutil.Popen([redis_server(), *map(str, arguments)], stdout=log, stderr=subprocess.STDOUT)

    def settled(self) -> bool:
        """Every server has its part, all replicas follow, and the sentinels know each other and them."""
        primary = self.primary()
        others = len(self.ports) - 1
        with self.redis(primary) as redis:
            told = redis.info("replication")
        online = sum(told.get(f"slave{i}", {}).get("state") == "online" for i in range(others))
        states = [self.sentinel(port).sentinel_master(NAME) for port in self.sentinels]
        return online == others and all(
            state["num-other-sentinels"] == 2 and state["num-slaves"] == others for state in states
        )


@contextmanager
def group(folder: Path, replicas: int = 2, least: int = 1) -> Iterator[Group]:
    """All of it, ready; `least` is how many replicas a primary must have to take a write."""
    found = Group(folder, [free_port() for _ in range(replicas + 1)], [free_port() for _ in range(3)], least)
    try:
        first, *others = found.ports
        found.start(first)
        for port in others:
            found.start(port, first)
        patiently(lambda: all(found.redis(port).ping() for port in found.ports))
        for port in found.sentinels:
            found.start_sentinel(port)
        patiently(found.settled)
        yield found
    finally:
        for process in found.processes.values():
            with suppress(psutil.NoSuchProcess):
                process.resume()  # what is stopped does not end
            stop(process)


def patiently(found: Callable[[], Any], limit_s: float = PATIENCE_S) -> Any:
    """The first answer that is true."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            if answer := found():
                return answer
        except (RedisError, ValueError, KeyError, TypeError):
            pass
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.2)
