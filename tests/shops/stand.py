"""A shop that releases: Redis, a service and the commands, each a process of its own."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
from shops.release import open_home, write_candidate
from shops.service import free_port, stop

from pipelines import cli
from pipelines.local.stack import redis_server
from serving.release import bundle, state, workers

WAIT_S = 120.0
HERO = {"surface": "homepage_hero", "limit": 3}


class Stand:
    """`home` holds the bundles and MLflow; `serve` starts the service, there or in another folder."""

    def __init__(self, home: Path, redis_port: int, count: int) -> None:
        self.home, self.redis_url, self.count = home, f"redis://127.0.0.1:{redis_port}/0", count
        self.url = f"http://127.0.0.1:{free_port()}"
        self.redis = redis.Redis.from_url(self.redis_url)
        self.log = home / "service.log"
        self.process: psutil.Popen | None = None

    def env(self, home: Path | None = None) -> dict[str, str]:
        return {**os.environ, "ENDCAP_HOME": str(home or self.home), "OMP_NUM_THREADS": "1"}

    def serve(self, home: Path | None = None) -> None:
        """The service, ready."""
        self.close()
        command = [sys.executable, "-m", "pipelines", "serve"]
        with self.log.open("ab") as out:
            self.process = psutil.Popen(
                command, env=self.env(home), cwd=home or self.home, stdout=out, stderr=subprocess.STDOUT
            )
        self.until(lambda: self.ready() and len(workers.read(self.redis)) == self.count)

    def close(self) -> None:
        if self.process:
            stop(self.process)
        self.process = None
        self.redis.delete(*self.redis.keys(workers.WORKER + "*") or ["none"])

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            told = self.log.read_text()[-4000:] if self.log.exists() else ""
            assert time.monotonic() < deadline, told
            time.sleep(0.1)

    def pids(self) -> set[int]:
        """The processes that answer."""
        assert self.process is not None
        children = self.process.children(recursive=True)
        alive = [p for p in children if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        return {p.pid for p in alive if "_bentoml_impl.worker.service" in p.cmdline()}

    def answering(self, requests: int = 30) -> set[str]:
        """Digests of the bundles that answer, asked over a new connection each; every answer is a list."""
        asked = [{**HERO, "session_id": f"s{number}"} for number in range(requests)]
        answers = [httpx.post(f"{self.url}/v1/recommend", json=body, timeout=20) for body in asked]
        assert {answer.status_code for answer in answers} == {200}
        assert all(answer.json()["items"] for answer in answers)
        return {answer.json()["bundle"] for answer in answers}

    def metric(self, name: str) -> dict[str, float]:
        """Sample (with its labels) -> value of what /metrics says."""
        text = httpx.get(f"{self.url}/metrics", timeout=20).text
        return {key: float(value) for key, value in re.findall(rf"^({name}\S*) (\S+)$", text, re.M)}

    def start(self, *args: str) -> subprocess.Popen[str]:
        """`endcap ARGS`, running."""
        command = [sys.executable, "-m", "pipelines", *args]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=self.env(), cwd=self.home, **pipes)

    def endcap(self, *args: str, status: int = 0) -> str:
        """What `endcap ARGS` prints, in this process, which has MLflow imported; it ends with `status`."""
        told = io.StringIO()
        with redirect_stdout(told), redirect_stderr(told):
            code = cli.run(args)
        assert code == status, told.getvalue()
        return told.getvalue()

    def release(self, content: str, *args: str, items: int = 6, seed: int = 0) -> state.Release:
        """A new bundle, promoted."""
        write_candidate(self.home, content, items=items, seed=seed)
        told = self.endcap("promote", *args)
        digest = told[: bundle.DIGEST.search(told).start() + 16][-16:]  # type: ignore[union-attr]
        return state.Release(digest, f"data/bundles/{digest}")

    def state(self) -> state.RolloutState:
        return state.present(self.redis)


def ended(running: Sequence[subprocess.Popen[str]], status: int = 0) -> list[str]:
    """What each of the commands printed; all end with `status`."""
    told = [one.communicate(timeout=WAIT_S)[0] for one in running]
    assert {one.returncode for one in running} == {status}, told
    return told


@contextmanager
def damaged(file: Path, content: bytes = b"not this") -> Iterator[None]:
    """The file holds something else for a while."""
    right = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(right)


@pytest.fixture(scope="module")
def stand(
    tmp_path_factory: pytest.TempPathFactory, empty_registry: Path, request: pytest.FixtureRequest
) -> Iterator[Stand]:
    """Nothing is promoted and nothing serves yet; a module's WORKERS is how many will (two)."""
    count = getattr(request.module, "WORKERS", 2)
    folder, port = tmp_path_factory.mktemp("stand"), free_port()
    patch = pytest.MonkeyPatch()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = psutil.Popen([redis_server(), *options], stdout=subprocess.DEVNULL)
    try:
        home = open_home(folder, patch, empty_registry, f"redis://127.0.0.1:{port}/0")
        (home / "run" / "cache").unlink()  # this shop compiles for itself
        params = home / "params.yaml"
        text = params.read_text().replace("holdout_share: 0.02", "holdout_share: 0.0")
        params.write_text(re.sub(r"^  workers: 1$", f"  workers: {count}", text, flags=re.M))
        found = Stand(home, port, count)
        patch.setenv("ENDCAP_SERVICE_PORT", found.url.rpartition(":")[2])
        found.until(lambda: _answers(found.redis))
        yield found
        found.close()
        found.redis.close()
    finally:
        stop(server)
        patch.undo()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
