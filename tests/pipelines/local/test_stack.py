"""Detached processes: started once, found again, ended alone; a pid that became another is left alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import redis
from shops.service import free_port

from feature_repo.errors import UnavailableError
from feature_repo.features.store import store_config
from feature_repo.online.connection import connect
from feature_repo.ports import password_file, redis_url
from pipelines.local import process, stack
from pipelines.local.process import Program, StackError
from serving.release.looks import guard_age_s

pytestmark = pytest.mark.fault
ROOT = Path(__file__).resolve().parents[3]
FORKING = (
    "import subprocess, sys, time, pathlib;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "pathlib.Path(sys.argv[1]).write_text(str(child.pid)); time.sleep(60)"
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for record in process.recorded(tmp_path):
        process.stop(record, tmp_path, 5)


def forking(folder: Path) -> Program:
    """A leader with one worker, ready when the worker runs."""
    mark = folder / "worker"
    return Program("forking", (sys.executable, "-c", FORKING, str(mark)), ready=mark.exists)


def test_a_second_start_finds_the_first_and_stop_ends_leader_and_worker(folder: Path) -> None:
    (first,) = process.start([forking(folder)], folder, 20)
    assert process.start([forking(folder)], folder, 20) == [first]
    worker = psutil.Process(int((folder / "worker").read_text()))
    assert {p.pid for p in first.members()} == {first.pid, worker.pid}
    assert process.stop(first, folder, 5)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert process.find(folder, "forking") is None
    assert not process.stop(first, folder, 5)


def test_workers_of_a_killed_leader_are_ended_before_the_next_start(folder: Path) -> None:
    (first,) = process.start([forking(folder)], folder, 20)
    orphan = psutil.Process(int((folder / "worker").read_text()))
    os.kill(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)
    assert process.find(folder, "forking") is None and orphan.is_running()
    (folder / "worker").unlink()
    (second,) = process.start([forking(folder)], folder, 20)
    assert second.pid != first.pid
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_a_recycled_pid_is_left_alone(folder: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        started = psutil.Process(stranger.pid).create_time()
        stale = process.Record("forking", stranger.pid, started - 3600, None)
        assert stale.members() == []
        assert not process.stop(stale, folder, 1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_that_ends_early_is_reported_with_the_end_of_its_log(folder: Path) -> None:
    broken = Program("broken", (sys.executable, "-c", "raise SystemExit('no licence')"), ready=lambda: False)
    with pytest.raises(
        StackError, match=r"(?s)broken ended with status 1; the end of .*broken.log:.*no licence"
    ):
        process.start([broken], folder, 20)
    assert process.recorded(folder) == []


def test_a_process_that_never_gets_ready_is_ended(folder: Path) -> None:
    idle = Program("idle", (sys.executable, "-c", "import time; time.sleep(60)"), ready=lambda: False)
    start = time.monotonic()
    with pytest.raises(StackError, match="idle was not ready after 1 s"):
        process.start([idle], folder, 1)
    assert time.monotonic() - start < 10
    assert process.recorded(folder) == []


def test_a_taken_port_is_named_with_the_setting_that_changes_it(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        program = replace(forking(folder), port=port, port_setting="ENDCAP_SERVICE_PORT")
        with pytest.raises(StackError, match=f"port {port} for forking is not free.*set ENDCAP_SERVICE_PORT"):
            process.start([program], folder, 5)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    monkeypatch.setenv("ENDCAP_REDIS_PORT", str(free_port()))
    monkeypatch.delenv("REDIS_URL", raising=False)
    yield tmp_path
    stack.take_down()


def test_the_embedded_redis_keeps_what_it_accepted_over_kill_9(home: Path) -> None:
    (record,) = stack.bring_up(("redis",))
    assert record.port is not None
    client = redis.Redis.from_url(redis_url())
    client.set("basket", "full")
    os.kill(record.pid, signal.SIGKILL)
    os.waitpid(record.pid, 0)
    (again,) = stack.bring_up(("redis",))
    assert again.pid != record.pid
    assert client.get("basket") == b"full"
    client.close()


def test_up_twice_is_one_redis_and_down_ends_it(home: Path) -> None:
    assert stack.bring_up(("redis",)) == stack.bring_up(("redis",))
    assert stack.take_down() == ["redis"]
    assert stack.take_down() == []


def test_another_redis_is_used_and_not_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(StackError, match="REDIS_URL: no Redis answers there"):
        stack.bring_up(("redis",))
    assert "redis" not in stack.programs(stack.stack_params(), home / "run" / "simulated")


def test_everything_listens_on_loopback_only(home: Path) -> None:
    (record,) = stack.bring_up(("redis",))
    listening = [c.laddr.ip for c in psutil.Process(record.pid).net_connections() if c.status == "LISTEN"]
    assert listening == ["127.0.0.1"]


def test_the_embedded_redis_asks_for_a_password_that_only_its_owner_can_read(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (record,) = stack.bring_up(("redis",))
    assert record.port is not None
    secret = password_file().read_text()
    assert len(secret) >= 32
    for file in (password_file(), home / "run/simulated/redis.conf"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with redis.Redis(port=record.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    for process_ in psutil.process_iter():
        with suppress(psutil.Error):
            assert secret not in " ".join(process_.cmdline())
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{record.port}/0")  # as a page of the docs has it
    with connect() as ours:
        assert ours.ping()
        for command in ("CONFIG GET dir", "SAVE", "BGSAVE", "DEBUG SLEEP 0", "MODULE LIST", "FLUSHALL"):
            with pytest.raises(redis.ResponseError, match="unknown command"):
                ours.execute_command(*command.split())
    connection = store_config(home / "registry.db", redis_url()).online_store.connection_string
    assert f",password={secret}," in connection
    stack.take_down()
    with pytest.raises(UnavailableError) as told:
        connect()
    assert secret not in str(told.value) and f"redis://127.0.0.1:{record.port}/0" in str(told.value)
    assert stack.bring_up(("redis",)) and password_file().read_text() == secret


def test_the_log_of_a_process_has_a_bound_and_its_newest_lines(folder: Path) -> None:
    code = (
        "import sys; from pipelines.local import process; process.LOG_LOOK_S = 0.02;"
        "process.keep_log_bounded(20_000)\n"
        "import time\n"
        "for i in range(3000): print('line', i, flush=True); time.sleep(0.0002)\n"
        "time.sleep(0.2); print('the end', flush=True); time.sleep(60)"
    )
    log = process.log_file(folder, "talker")

    def ended() -> bool:
        return log.exists() and "the end" in log.read_text()

    process.start([Program("talker", (sys.executable, "-c", code), ended)], folder, 60)
    kept = log.with_name("talker.log.1").read_text()
    assert log.stat().st_size <= 30_000 and len(kept) <= 20_000
    assert kept.splitlines()[-1].startswith("line ") and "line 0\n" not in kept + log.read_text()
    assert "\0" not in log.read_text()  # it appends: a cut leaves no hole


def test_the_guard_is_a_process_that_is_ready_once_it_has_looked(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.bring_up(("redis", "guard"))
    redis_record = process.find(home / "run" / "simulated", "redis")
    assert redis_record is not None
    assert guard_age_s(connect()) is not None
    stack.status(json_output=True)
    told = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert (told["redis"], told["guard"], told["service"]) == ("ready", "ready", "stopped")
    os.kill(redis_record.pid, signal.SIGKILL)
    os.waitpid(redis_record.pid, 0)
    stack.bring_up(("redis",))
    assert process.find(home / "run" / "simulated", "guard") is not None  # it waits
    assert stack.take_down() == ["guard", "redis"]
