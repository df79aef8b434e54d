"""What was answered 202 is kept, also where the disk fills: the door shuts before, and says why."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from shops import full_disk
from shops.service import free_port
from shops.small import open_home

from feature_repo.ports import redis_url
from pipelines.local import process, stack
from pipelines.local.process import StackError
from serving.live.disk import MIB, Disk

pytestmark = pytest.mark.fault
ROOT = Path(__file__).resolve().parents[3]


def namespaces() -> bool:
    """True where a process may mount a file system of its own."""
    tried = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "small", "/mnt"], capture_output=True)
    return tried.returncode == 0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("REDIS_URL", raising=False)
    return open_home(tmp_path, monkeypatch)


def filled(home: Path, way: str) -> dict[str, Any]:
    (home / "small").mkdir()
    command = ["unshare", "-rm", sys.executable, full_disk.__file__, str(home / "small"), way]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(not namespaces(), reason="no file system can be mounted here")
def test_no_accepted_event_is_lost_when_the_disk_fills_and_redis_is_killed(home: Path) -> None:
    found = filled(home, "guarded")
    assert found["lost"] == [] and found["accepted"] > 1000
    assert f"MiB are left for Redis, less than serving.min_free_mib = {full_disk.FREE_MIB}" in found["told"]
    assert "make room on the disk that holds" in found["told"]


@pytest.mark.skipif(not namespaces(), reason="no file system can be mounted here")
def test_without_the_watermark_they_would_be(home: Path) -> None:
    found = filled(home, "unguarded")
    assert found["lost"] and "disk_error" in found["told"]


def test_a_redis_that_cannot_write_shuts_the_door_and_loses_nothing_once_it_can(home: Path) -> None:
    port, folder = free_port(), home / "redis"
    folder.mkdir()
    limit = (2 * MIB, resource.RLIM_INFINITY)
    server = full_disk.redis(
        folder,
        port,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
        restore_signals=False,  # SIGXFSZ stays ignored: the write fails, as on a full disk
    )
    try:
        accepted, told = asyncio.run(full_disk.pour(f"redis://127.0.0.1:{port}/0", folder, 100_000))
        assert "Redis cannot write its append-only file. Next: make room" in told or "disk_error" in told
        again, told = asyncio.run(full_disk.pour(f"redis://127.0.0.1:{port}/0", folder, 1))
        assert again == [] and "Redis cannot write its append-only file. Next: make room" in told
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        url = f"redis://127.0.0.1:{port}/0"
        _until_writable(url)
        server.kill()
        server.wait()
        server = full_disk.redis(folder, port)
        assert set(accepted) <= set(full_disk.logged(f"redis://127.0.0.1:{port}/0"))
    finally:
        server.kill()
        server.wait()


def _until_writable(url: str) -> None:
    """Redis tries again once a second."""
    import time

    from redis import Redis

    deadline = time.monotonic() + 60
    with Redis.from_url(url) as client:
        while client.info("persistence")["aof_last_write_status"] != "ok":
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_the_door_opens_again_when_there_is_room(redis_url: str, tmp_path: Path) -> None:
    left = [300]

    async def scene() -> list[str]:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            disk = Disk(client, tmp_path, 256, lambda _: left[0] * MIB)
            told = []
            for mib in (300, 255, 256):
                left[0] = mib
                await disk.look()
                told.append(str(disk.refusal or ""))
            return told

    before, low, after = asyncio.run(scene())
    assert before == after == ""
    assert low.startswith("255 MiB are left for Redis, less than serving.min_free_mib = 256. Next: make room")


def test_an_append_only_file_cut_short_loses_its_last_write_alone_and_one_that_is_garbled_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_REDIS_PORT", str(free_port()))
    (record,) = stack.bring_up(("redis",))
    assert record.port
    try:
        accepted, _ = asyncio.run(full_disk.pour(redis_url(), None, 20))
        stack.take_down(("redis",))
        file = home / "run/simulated/redis/appendonly.aof"
        whole = file.read_bytes()
        file.write_bytes(whole[:-7])
        stack.bring_up(("redis",))
        assert len(set(accepted) - set(full_disk.logged(redis_url()))) <= full_disk.BATCH
        stack.take_down(("redis",))
        file.write_bytes(whole[: len(whole) // 2] + b"\0" * 400 + whole[len(whole) // 2 :])
        with pytest.raises(StackError, match=r"(?s)redis ended with status 1; .*redis-check-aof --fix"):
            stack.bring_up(("redis",))
        assert process.recorded(home / "run/simulated") == []
    finally:
        stack.take_down(("redis",))
