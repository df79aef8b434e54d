"""A service and a consumer over a primary, two replicas and three sentinels; who asks and posts meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import yaml
from shops.faults import Client
from shops.sentinels import Group, group, patiently
from shops.service import free_port, install, stop
from shops.storefront import make_home
from shops.stream import as_stored, behind, folded, keys_of, rows, started, stream_params

from feature_repo.online import connection
from pipelines.stream.consumer import Consumer
from serving.live.deadline import UNAVAILABLE

LIMIT, EVENTS, PAUSE_S, ASK_S = 12, 4, 0.2, 0.05  # 20 events and 20 questions a second


@dataclass
class FailoverShop:
    url: str
    group: Group
    home: Path


@dataclass
class Asker:
    """When each full list was asked for, how long it took, why it is degraded; else what went wrong."""

    url: str
    answered: list[tuple[float, float, str | None]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def run(self, enough: threading.Event) -> None:
        with httpx.Client(base_url=self.url, timeout=10) as http:
            for number in iter(lambda: len(self.answered) + len(self.failed), -1):
                if enough.is_set():
                    return
                body = {"surface": "homepage_hero", "session_id": f"asker {number % 40}", "limit": LIMIT}
                began = time.monotonic()
                try:
                    answer = http.post("/v1/recommend", json=body)
                    told = answer.json()
                    assert answer.status_code == 200 and len(told["items"]) == LIMIT, answer.text
                    self.answered.append((began, time.monotonic() - began, told["degraded"]))
                except (httpx.TransportError, AssertionError, ValueError) as error:
                    self.failed.append(f"{type(error).__name__}: {error}")
                time.sleep(ASK_S)

    def degraded_s(self) -> float:
        """The longest time in which every answer was made without the shopper's rows."""
        runs = (
            list(run) for lacks, run in groupby(self.answered, lambda one: one[2] == UNAVAILABLE) if lacks
        )
        return max((run[-1][0] + run[-1][1] - run[0][0] for run in runs), default=0.0)


class Shopper(Client):
    """Posts a few events at a time; `longest_s` is how long the worst POST was tried until its 202."""

    longest_s = 0.0

    def run(self, enough: threading.Event) -> None:
        rng = np.random.default_rng(self.seed)
        try:
            with httpx.Client(base_url=self.shop.url, timeout=3) as http:
                while not enough.is_set():
                    batch = [self._event(rng, len(self.accepted) + i) for i in range(EVENTS)]
                    began = time.monotonic()
                    self._post(http, batch)
                    self.accepted += batch
                    self.longest_s = max(self.longest_s, time.monotonic() - began)
                    time.sleep(PAUSE_S)
        except BaseException as error:
            self.error = error

    def goes_on(self, since: int) -> bool:
        """Whether two more POSTs were accepted than the first `since` events."""
        if self.error:
            raise self.error
        return len(self.accepted) > since + 2 * EVENTS


@contextmanager
def under_load(shop: FailoverShop, prefix: str, seed: int) -> Iterator[tuple[Shopper, Asker]]:
    """Both at work for as long as the block lasts."""
    shopper, asker = Shopper(shop, prefix, seed), Asker(shop.url)  # type: ignore[arg-type]
    enough = threading.Event()
    threads = [threading.Thread(target=one.run, args=(enough,)) for one in (shopper, asker)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1.5)
        yield shopper, asker
        time.sleep(1.5)
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    if shopper.error:
        raise shopper.error


def applied(shop: FailoverShop, shopper: Shopper) -> tuple[Any, Any]:
    """The rows that the primary has once all is applied, and those that the accepted events make."""
    redis = shop.group.redis()
    patiently(lambda: started(redis) and behind(redis) == 0)
    events = as_stored(shopper.accepted)
    return rows(redis, keys_of(events)), folded(events, keys_of(events))


@contextmanager
def failover_shop(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[FailoverShop]:
    """`endcap serve` by the sentinels, a 202 for what a replica has, and a consumer in this process."""
    home, bundle = make_home(folder / "home")
    params = yaml.safe_load((home / "params.yaml").read_text())
    params["router"]["holdout_share"] = 0.0
    params["stream"]["replicas"] = 1
    params["serving"] |= {
        "workers": 1,
        "traffic_timeout_s": 10.0,
    }  # a busy machine holds a process up for a second
    params["access"]["counting"] = dict.fromkeys(params["access"]["counting"], 10**9)
    (home / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    patch.setenv("ENDCAP_HOME", str(home))
    port = free_port()
    with group(folder) as found:
        install(home, bundle, found.url_of(found.primary()))
        env = {**os.environ, "REDIS_URL": found.url, "OMP_NUM_THREADS": "1"}
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "pipelines", "serve", "--port", str(port)]
            service = psutil.Popen(command, env=env, cwd=home, stdout=log, stderr=subprocess.STDOUT)
        opened = partial(connection.client, found.url, socket_timeout=5)
        consumer = Consumer(opened, stream_params(lease_ms=3_000, block_ms=200), "one")
        working = threading.Thread(target=consumer.run)
        working.start()
        try:
            shop = FailoverShop(f"http://127.0.0.1:{port}", found, home)
            patiently(lambda: _ready(shop.url), 240)
            yield shop
        finally:
            consumer.stop()
            working.join()
            stop(service)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
