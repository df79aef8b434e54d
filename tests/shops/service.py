"""The service as it runs: `endcap serve` in processes of its own, on a free port, over a Redis of its own.

`pytest_plugins = ("shops.service",)` in a test module brings `service`; it starts once per test session.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.parquet as pq
import pytest
import redis
import yaml
from shops.storefront import CATALOGUE_KEY, SECRET_KEY, act, make_home, release_of

from feature_repo.clock import micros
from feature_repo.events import EARLIEST
from feature_repo.features.catalogue import DECLARED, ITEM_CATALOGUE, catalogue_rows
from feature_repo.online.rows import OnlineView, write_newer
from feature_repo.persons.pseudonyms import Persons
from pipelines.local.stack import redis_server
from serving.release import state

READY_S = 180
PROJECT = "endcap"  # feature_store.yaml


@dataclass
class Service:
    """A running service and what it stands on."""

    url: str
    redis_url: str
    home: Path
    bundle: Path
    process: psutil.Popen
    redis_process: psutil.Popen
    log: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=15)

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url)

    def workers(self) -> list[psutil.Process]:
        """The processes that answer requests."""
        children = self.process.children(recursive=True)
        alive = [p for p in children if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        return [p for p in alive if "_bentoml_impl.worker.service" in p.cmdline()]

    def store(self, view: str, entity: str, ts: int, row: Mapping[str, Any]) -> None:
        """Put a feature row where the stream would, replacing an older one."""
        declared = next(d for d in DECLARED if d.name == view)
        if declared.key in ("user_id", "session_id"):
            entity = Persons(os.environ["ENDCAP_PERSON_KEY"].encode()).of(entity)
        with self.redis() as client:
            assert write_newer(client, OnlineView(declared), [(entity, ts, row)]) == [entity]

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                if httpx.get(f"{self.url}/readyz", timeout=1).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the service did not get ready:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with one bundle of 60 items as champion, nobody in the holdout, and no shopper known."""
    with running_service(tmp_path_factory.mktemp("service")) as found:
        yield found


@contextmanager
def running_service(
    folder: Path,
    changed: Mapping[str, Any] | None = None,
    files: int | None = None,
    release: bool = True,
    liveness: Mapping[str, float] | None = None,
    seen_at: Callable[[int], int] = lambda port: port,
    cors: Mapping[str, Any] | None = None,
) -> Iterator[Service]:
    """As the fixture, with `serving`, `cors` and limits of `liveness` changed, at most `files` open files,
    and a `release` or none; it sees the Redis at a port at `seen_at` of it, as through a proxy.
    """
    home, bundle = make_home(folder / "home")
    params = yaml.safe_load((home / "params.yaml").read_text())
    params["router"]["holdout_share"] = 0.0
    params["liveness"] |= {"consumers": 1e9, **(liveness or {})}  # none works here: what is posted waits
    params["serving"] |= changed or {}
    params["cors"] |= cors or {}
    (home / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    url, redis_port = f"http://127.0.0.1:{free_port()}", free_port()
    redis_url, log = f"redis://127.0.0.1:{redis_port}/0", folder / "log"
    options = ["--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    store = psutil.Popen([redis_server(), *options], stdout=subprocess.DEVNULL)
    env = {
        "ENDCAP_CATALOGUE_TOKEN": CATALOGUE_KEY,
        "ENDCAP_SECRET_TOKEN": SECRET_KEY,
        **os.environ,
        "ENDCAP_HOME": str(home),
        "REDIS_URL": redis_url,
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pipelines", "serve", "--port", url.rsplit(":", 1)[1]]
    running = None
    try:
        if release:
            install(home, bundle, redis_url)
        env["REDIS_URL"] = f"redis://127.0.0.1:{seen_at(redis_port)}/0"
        with log.open("wb") as out:
            running = psutil.Popen(
                ([] if files is None else ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"]) + command,
                env=env,
                cwd=home,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        found = Service(url, redis_url, home, bundle, running, store, log)
        if release:
            found.wait_until_ready()
        yield found
    finally:
        for process in filter(None, (running, store)):
            stop(process)


def stop(process: psutil.Popen) -> None:
    """End a process and whatever it started."""
    family = [process, *process.children(recursive=True)] if process.is_running() else []
    if family:
        process.terminate()
    _, left = psutil.wait_procs(family, timeout=10)
    for survivor in left:
        survivor.kill()


def install(home: Path, bundle: Path, redis_url: str) -> None:
    """The catalogue in the online store, the bundle as champion."""
    with redis.Redis.from_url(redis_url) as client:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                client.ping()
                break
            except redis.RedisError:
                time.sleep(0.02)
        rows = catalogue_rows(bundle / "catalogue.parquet").to_pylist()
        names = [c.name for c in ITEM_CATALOGUE.columns]
        items = [(row["item_id"], micros(EARLIEST), {name: row[name] for name in names}) for row in rows]
        assert len(write_newer(client, OnlineView(ITEM_CATALOGUE), items)) == len(items)
        assert pq.read_metadata(bundle / "catalogue.parquet").num_rows == len(items)
        state.install(client, release_of(home, bundle), act())
