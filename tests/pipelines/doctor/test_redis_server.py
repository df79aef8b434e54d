"""What the doctor says of a real redis-server: one that keeps everything, and one for each way not to."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, RedisError
from shops.deployment import change, doctor, open_deployment, server

from feature_repo.online.connection import client
from pipelines.doctor import deployment, redis_server
from pipelines.local.stack import DURABLE


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return open_deployment(tmp_path, monkeypatch)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The looks at Redis alone."""
    looks = [(look, asks) for look, asks in deployment.LOOKS if look.__module__ == redis_server.__name__]
    monkeypatch.setattr(deployment, "LOOKS", tuple(looks))


def test_a_redis_as_endcap_up_has_it_is_right_and_ends_with_0(
    only: None,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with server(tmp_path, *DURABLE) as url:
        monkeypatch.setenv("REDIS_URL", url)
        lines = doctor(capsys, code=0)
    assert lines[0].startswith("ok    redis-server: 6.") and lines[0].endswith("; allowed: 6.2 on")
    assert lines[1].startswith("ok    clock: Redis is 0.0") and lines[1].endswith("; allowed: 1 s")
    assert lines[2:] == [
        "ok    appendonly: yes; allowed: yes",
        "ok    appendfsync: no; allowed: no, always",
        "ok    save: never; allowed: never",
        "ok    maxmemory-policy: noeviction; allowed: noeviction",
        "ok    last write: ok; allowed: ok",
        "7 are right, 0 can wait, nothing must be mended",
    ]


@pytest.mark.parametrize(
    ("options", "line", "code"),
    [
        (
            ("--appendonly", "no"),
            "must  appendonly: no; allowed: yes. Next: set appendonly yes",
            1,
        ),
        (
            ("--appendfsync", "everysec"),
            "warn  appendfsync: everysec; allowed: no, always. Next: set appendfsync no",
            0,
        ),
        (("--appendfsync", "always"), "ok    appendfsync: always; allowed: no, always", 0),
        (("--save", "3600", "1"), 'warn  save: 3600 1; allowed: never. Next: set save ""', 0),
        (
            ("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"),
            "must  maxmemory-policy: allkeys-lru, 64 MiB; allowed: noeviction. Next: set it",
            1,
        ),
        (
            ("--maxmemory-policy", "volatile-lru"),
            "warn  maxmemory-policy: volatile-lru; allowed: noeviction. Next: set it",
            0,
        ),
        (
            ("--maxmemory", "64mb"),
            "ok    maxmemory-policy: noeviction, 64 MiB; allowed: noeviction",
            0,
        ),
    ],
)
def test_a_setting_by_which_something_is_lost_is_told(
    options: tuple[str, ...],
    line: str,
    code: int,
    only: None,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with server(tmp_path, *DURABLE, *options) as url:
        monkeypatch.setenv("REDIS_URL", url)
        assert line in doctor(capsys, code)


def test_a_closed_config_is_read_in_the_servers_file_and_where_that_is_not_here_it_is_said(
    only: None,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = tmp_path / "own.conf"
    settings.write_text('appendonly yes\nappendfsync everysec\nsave ""\nrename-command CONFIG ""\n')
    with server(tmp_path, str(settings)) as url:
        monkeypatch.setenv("REDIS_URL", url)
        told = doctor(capsys, 0)
        assert "warn  appendfsync: everysec; allowed: no, always. Next: set appendfsync no" in told
        settings.unlink()
        told = doctor(capsys, 0)
    assert "note  appendfsync, save: not told: CONFIG is closed, its file is not here" in told


def test_a_write_that_failed_is_told(
    only: None,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder := tmp_path / "redis").mkdir()
    with server(folder, "--save", "") as url, Redis.from_url(url) as redis:
        shutil.rmtree(folder)
        redis.bgsave()
        info: Any = redis.info
        deadline = time.monotonic() + 30
        while info("persistence")["rdb_last_bgsave_status"] == "ok" and time.monotonic() < deadline:
            time.sleep(0.05)
        monkeypatch.setenv("REDIS_URL", url)
        told = doctor(capsys)
    assert "must  last write: rdb_last_bgsave_status; allowed: ok. Next: its log tells" in told


def test_a_redis_that_still_loads_is_waited_for_and_asked_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n" * 100_000
    (tmp_path / "appendonly.aof").write_bytes(written)
    with server(tmp_path, *DURABLE, "--key-load-delay", "100", wait=False) as url:
        monkeypatch.setenv("REDIS_URL", url)
        with pytest.raises(RedisError, match="loading"), Redis.from_url(url) as redis:
            redis.get("key 1")
        told = doctor(capsys)
    assert told[0].startswith(f"must  redis: {url} loads its data, ")
    assert told[0].endswith(" %. Next: wait")
    assert not any("appendonly" in line for line in told)


def test_a_clock_that_is_off_is_told_with_its_direction_and_its_limit(home: Path, redis_url: str) -> None:
    with client(redis_url) as redis:
        behind = next(iter(redis_server.clock(redis, lambda: time.time() + 7)))
        ahead = next(iter(redis_server.clock(redis, lambda: time.time() - 7)))
        change(home, "doctor", max_skew_s=9.0)
        right = next(iter(redis_server.clock(redis, lambda: time.time() - 7)))
    assert (behind.state, ahead.state, right.state) == ("must", "must", "ok")
    assert behind.value.startswith("Redis is 7.0") and behind.value.endswith(" s behind")
    assert (
        ahead.line().startswith("must  clock: Redis is ") and " s ahead; allowed: 1 s. Next: " in ahead.line()
    )
    assert right.line().endswith(" s ahead; allowed: 9 s")


def test_a_server_that_is_too_old_is_told(home: Path, redis_url: str) -> None:
    change(home, "doctor", redis_at_least="6.10")
    with client(redis_url) as redis:
        (found,) = redis_server.version(redis)
    assert found.line().endswith("; allowed: 6.10 on. Next: install a newer one")
    assert found.state == "must"


def test_valkey_is_told_by_its_own_version_and_judged_by_that_of_redis(home: Path) -> None:
    class Valkey:
        def info(self) -> dict[str, str]:
            return {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.0"}

    told: Any = Valkey()
    (found,) = redis_server.version(told)
    assert found.line() == "ok    redis-server: 7.2.4, valkey 8.1.0; allowed: 6.2 on"


def test_a_wrong_password_is_not_a_redis_that_is_away(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(tmp_path, "--save", "", "--requirepass", "mellon", password="mellon") as url:
        monkeypatch.setenv("REDIS_URL", url.replace("mellon", "friend"))
        told = doctor(capsys)
        assert told[0].startswith("must  redis: redis://127.0.0.1:")
        assert told[0].endswith(". Next: mend the password in REDIS_URL")
        assert not any("friend" in line for line in told)
        monkeypatch.setenv("REDIS_URL", url)
        assert "ok    redis password: asked for" in doctor(capsys)
