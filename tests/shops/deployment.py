"""A deployment to be looked at by `endcap doctor`: a home of its own, redis-servers of any settings."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis, RedisError
from shops.service import free_port
from shops.small import open_home

from feature_repo.ports import PORTS, variable
from pipelines import cli
from pipelines.local.stack import redis_server

NOWHERE = "redis://127.0.0.1:1/0"


def open_deployment(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """A home where nothing runs: ports that are free, no Redis."""
    for field in PORTS:
        patch.setenv(variable(field), str(free_port()))
    patch.setenv("REDIS_URL", NOWHERE)
    return open_home(folder, patch)


def change(home: Path, section: str, **values: Any) -> None:
    """Other constants in its params.yaml."""
    params = yaml.safe_load((home / "params.yaml").read_text())
    params[section] |= values
    (home / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@contextmanager
def server(folder: Path, *options: str, password: str = "", wait: bool = True) -> Iterator[str]:
    """URL of a redis-server with `options`; its files are in `folder`."""
    port = free_port()
    where = [*options, "--port", str(port), "--dir", str(folder)]
    if "--bind" not in options:
        where += ["--bind", "127.0.0.1"]
    process = subprocess.Popen([redis_server(), *where], stdout=subprocess.DEVNULL)
    url = f"redis://{f':{password}@' if password else ''}127.0.0.1:{port}/0"
    try:
        deadline = time.monotonic() + 60
        while wait or time.monotonic() < deadline - 59.8:
            try:
                with Redis.from_url(url) as redis:
                    redis.ping()
                    break
            except RedisError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.02)
        yield url
    finally:
        process.kill()
        process.wait(timeout=10)


def doctor(capsys: pytest.CaptureFixture[str], code: int = 1) -> list[str]:
    """The lines of `endcap doctor`, none of them wider than a terminal."""
    assert cli.run(["doctor"]) == code
    found = capsys.readouterr()
    lines = found.out.splitlines() + found.err.splitlines()
    assert not [line for line in lines if len(line) > 80]
    steps = [line for line in lines if line.startswith(("must", "warn"))]
    assert not [line for line in steps if ". Next: " not in line or line.endswith("…")]
    assert "Traceback" not in found.out + found.err
    return lines


def findings(capsys: pytest.CaptureFixture[str], code: int = 1) -> dict[str, dict[str, str]]:
    """The same for machines, by what they are of."""
    assert cli.run(["doctor", "--json"]) == code
    return {one["thing"]: one for one in json.loads(capsys.readouterr().out)}
