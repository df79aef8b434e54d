"""Why events are not stored: a word for whoever sent them, the whole text for whoever keeps the shop."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from shops.service import free_port
from shops.storefront import Shop, make_home, metric, open_shop
from shops.stream import wait_until

from feature_repo.eventlog.redis_writer import RedisWriter
from pipelines.local import stack

VIEW = {"type": "product_viewed", "session_id": "s1", "item_id": "item-1"}


@pytest.fixture
def shop(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    home = make_home(tmp_path)
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as opened:
        yield opened


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (("--maxmemory", "100kb"), "out_of_memory"),
        (("--replicaof", "127.0.0.1", "1", "--replica-serve-stale-data", "yes"), "read_only"),
        (("--requirepass", "secret"), "password_refused"),
        (("--save", "1", "1", "--rdbcompression", "no"), "disk_error"),
    ],
)
def test_a_503_tells_why_in_a_word_and_the_log_in_full(
    shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture, options: tuple[str, ...], cause: str
) -> None:
    port = free_port()
    where = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path))
    server = subprocess.Popen([stack.redis_server(), *where, *options], stdout=subprocess.DEVNULL)
    ingress = shop.client.app.state.desk.ingress  # type: ignore[attr-defined]
    writer = ingress.writer
    away = redis.asyncio.Redis(port=port, retry=AsyncRetry(NoBackoff(), 0))
    before = metric("endcap_events_not_stored_total", cause=cause)
    try:
        with redis.Redis(port=port) as admin:
            wait_until(lambda: answers(admin), 20)
            if cause == "disk_error":
                cannot_save(admin, tmp_path)
        ingress.writer = RedisWriter(away, writer._params, 60)
        response = shop.post("/v1/events", {"events": [VIEW]})
    finally:
        ingress.writer = writer
        shop.run(away.aclose)
        server.kill()
        server.wait()
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["error"]["reason"] == f"events cannot be stored ({cause})"
    assert metric("endcap_events_not_stored_total", cause=cause) == before + 1
    assert f"storing events ({cause}) failed" in caplog.text and "Traceback" in caplog.text


def answers(admin: redis.Redis) -> bool:
    """True for any answer, also a refused password."""
    try:
        return bool(admin.ping())
    except redis.AuthenticationError:
        return True
    except redis.RedisError:
        return False


def cannot_save(admin: redis.Redis, folder: Path) -> None:
    """The folder of Redis' snapshots is gone: it refuses writes until one succeeds."""
    admin.set("something", "to save")
    admin.config_set("dir", "/proc/self")
    with suppress(redis.ResponseError):
        admin.bgsave()
    wait_until(lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err", 20)
