"""A running shop whose Redis, service and stream consumers are killed at random while clients post events."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import yaml
from redis import Redis
from redis.exceptions import RedisError
from shops.keeper import Keeper
from shops.service import READY_S, free_port, stop
from shops.small import KINDS, SHARES
from shops.storefront import CATALOGUE_KEY

from feature_repo.clock import DAY_US
from feature_repo.eventlog.keys import LEASE
from pipelines.local.stack import DURABLE, consumers_read, redis_server

KEEPERS = 2
CLIENTS, BATCH, ENOUGH = 3, 20, 15  # a client posts at least so many batches
PATIENCE_S = 120.0  # for what was killed to come back, on a machine that is busy with other things
SHOPPERS, ITEMS = 12, 15  # of a client; of a round

BEGUN = (time.time_ns() // 1000 // DAY_US - 2) * DAY_US  # the service refuses what is a week old


@dataclass
class FaultShop:
    """The processes, and what was done to them."""

    home: Path
    redis_port: int
    url: str
    redis_process: psutil.Popen
    service: psutil.Popen
    supervisor: psutil.Popen
    killed: dict[str, int] = field(default_factory=lambda: {"consumer": 0, "service": 0, "redis": 0})

    def redis(self) -> Redis:
        return Redis(port=self.redis_port, socket_timeout=5)

    def kill(self, victim: str, rest_s: float) -> None:
        """KILL one process; Redis is started again `rest_s` later, the others by who watches over them."""
        if victim == "redis":
            self.redis_process.kill()
            self.redis_process.wait()
            time.sleep(rest_s)
            self.redis_process = _start_redis(self.home, self.redis_port)
        else:
            _patiently(lambda: self._kill_one_of(self._consumers if victim == "consumer" else self._workers))
        self.killed[victim] += 1

    @staticmethod
    def _kill_one_of(found: Callable[[], list[int]]) -> bool:
        try:
            os.kill(random.choice(found()), signal.SIGKILL)
        except ProcessLookupError:  # it had ended by itself just now
            return False
        return True

    def _consumers(self) -> list[int]:
        """Those that hold a task: a consumer's name ends with its pid."""
        mine = {child.pid for child in self.supervisor.children()}
        return _patiently(
            lambda: sorted(
                {
                    pid
                    for key in self.redis().scan_iter(f"{LEASE}*")
                    if (pid := int((self.redis().get(key) or b"-0").rpartition(b"-")[2])) in mine
                }
            )
        )

    def _workers(self) -> list[int]:
        def found() -> list[int]:
            httpx.post(f"{self.url}/v1/events", timeout=2)  # one that answers
            family = self.service.children(recursive=True)
            return [p.pid for p in family if "_bentoml_impl.worker.service" in p.cmdline()]

        return _patiently(found)


@dataclass
class Client:
    """Posts the events of its own shoppers in their order, each batch until it is answered 202."""

    shop: FaultShop
    prefix: str
    seed: int
    accepted: list[dict[str, Any]] = field(default_factory=list)
    resent: int = 0
    error: BaseException | None = None

    def run(self, enough: threading.Event) -> None:
        """Until `enough`, and at least a few batches."""
        rng = np.random.default_rng(self.seed)
        try:
            with httpx.Client(base_url=self.shop.url, timeout=3) as http:
                while not enough.is_set() or len(self.accepted) < ENOUGH * BATCH:
                    batch = [self._event(rng, len(self.accepted) + i) for i in range(BATCH)]
                    self._post(http, batch)
                    self.accepted += batch
                    time.sleep(0.02)
        except BaseException as error:
            self.error = error

    def _post(self, http: httpx.Client, batch: list[dict[str, Any]]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if self._send(http, batch):
                    return
            except httpx.TransportError:
                pass
            self.resent += 1
            assert time.monotonic() < deadline, "no answer for a long time"
            time.sleep(0.1)

    def _send(self, http: httpx.Client, batch: list[dict[str, Any]]) -> bool:
        """Whether all were accepted; else none may have been."""
        answer = http.post("/v1/events", json={"events": batch})
        assert answer.status_code in (202, 503), answer.text
        assert answer.status_code == 503 or answer.json()["rejected"] == []
        return answer.status_code == 202

    def _event(self, rng: np.random.Generator, number: int) -> dict[str, Any]:
        """The `number`-th: visitors log in after two batches, one in four never; one in ten is late."""
        visit = int(rng.integers(0, SHOPPERS))
        late = int(rng.integers(0, DAY_US // 24)) if rng.random() < 0.1 else 0
        kind = str(rng.choice(KINDS, p=SHARES))
        known = visit % 4 and number > 2 * BATCH
        return {
            "event_id": f"{self.prefix}-{number}",
            "event_ts": BEGUN + number * 1_000_000 - late,
            "type": kind,
            "user_id": f"{self.prefix} user {visit // 2}" if known else None,
            "consent": True,
            "session_id": f"{self.prefix} session {visit}",
            "item_id": f"{self.prefix.rpartition(' ')[0]} item {rng.integers(0, ITEMS)}",
            "position": int(rng.integers(1, 20)) if kind == "impression" else None,
        }


def faulty_round(
    shop: FaultShop, number: int, kills: list[str], pause_s: float
) -> tuple[list[Client], list[Keeper]]:
    """Clients and keepers post while `kills` happen, in a random order and at random moments."""
    dice = random.Random(number)
    clients = [Client(shop, f"round {number} client {i}", 100 * number + i) for i in range(CLIENTS)]
    keepers = [
        Keeper(shop.url, CATALOGUE_KEY, f"round {number} kept {i}", 100 * number + i) for i in range(KEEPERS)
    ]
    enough = threading.Event()
    threads = [threading.Thread(target=one.run, args=(enough,)) for one in (*clients, *keepers)]
    for thread in threads:
        thread.start()
    try:
        for victim in dice.sample(kills, len(kills)):
            time.sleep(dice.uniform(0, 2 * pause_s))
            shop.kill(victim, dice.uniform(0, 0.5))
        time.sleep(pause_s)
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    for client in clients:
        if client.error:
            raise client.error
    return clients, keepers


@contextmanager
def fault_shop(folder: Path) -> Iterator[FaultShop]:
    """Redis with an append-only file, `endcap serve`, and `endcap stream` with two processes."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    # Few visits do what many do, the more the longer it takes: all of it counts, for every row is compared.
    params["access"]["counting"] = dict.fromkeys(params["access"]["counting"], 10**9)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    redis_port, port = free_port(), free_port()
    server = _start_redis(folder, redis_port)
    url = f"redis://127.0.0.1:{redis_port}/0"
    env = {**os.environ, "ENDCAP_HOME": str(folder), "REDIS_URL": url, "OMP_NUM_THREADS": "1"}
    env["ENDCAP_CATALOGUE_TOKEN"] = CATALOGUE_KEY
    endcap = [sys.executable, "-m", "pipelines"]
    started = [server]
    try:
        with (folder / "log").open("ab") as log:
            for command in (["stream", "--processes", "2"], ["serve", "--port", str(port)]):
                started.append(
                    psutil.Popen(
                        [*endcap, *command], env=env, cwd=folder, stdout=log, stderr=subprocess.STDOUT
                    )
                )
        shop = FaultShop(folder, redis_port, f"http://127.0.0.1:{port}", server, started[2], started[1])
        _patiently(lambda: consumers_read(url, 4), READY_S)
        _patiently(lambda: httpx.post(f"{shop.url}/v1/events", timeout=2).status_code == 400, READY_S)
        yield shop
        started[0] = shop.redis_process
    finally:
        for process in reversed(started):
            stop(process)


def _start_redis(folder: Path, port: int) -> psutil.Popen:
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    return psutil.Popen([redis_server(), *options, *DURABLE], stdout=subprocess.DEVNULL)


def _patiently(found: Any, limit_s: float = PATIENCE_S) -> Any:
    """The first answer that is true; what was killed a moment ago may not answer yet."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            if answer := found():
                return answer
        except (RedisError, httpx.TransportError, psutil.NoSuchProcess):
            pass
        assert time.monotonic() < deadline, "it did not come back"
        time.sleep(0.05)
