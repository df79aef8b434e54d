"""REDIS_URL may name sentinels: what it says, what is refused by name, and what of it may be shown."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from redis import Redis, RedisError
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.asyncio.sentinel import SentinelManagedSSLConnection
from redis.sentinel import SentinelConnectionPool
from shops.service import free_port
from shops.small import open_home
from shops.stream import wait_until

from feature_repo.errors import ParamsError
from feature_repo.features.store import open_store
from feature_repo.online import connection
from feature_repo.ports import Sentinels, sentinels, without_password
from pipelines import cli
from pipelines.local.stack import redis_server

URL = "redis+sentinel://who:s%40cret@a:5000,b,[::1]:5001/my.master-1/3?sentinel_username=u&sentinel_password=too"


def test_a_url_of_sentinels_says_who_they_are_and_what_opens_redis_and_them() -> None:
    assert sentinels(URL) == Sentinels(
        (("a", 5000), ("b", 26379), ("::1", 5001)),
        "my.master-1",
        {"db": 3, "username": "who", "password": "s@cret"},
        {"username": "u", "password": "too"},
    )
    assert sentinels("redis+sentinel://a/m") == Sentinels((("a", 26379),), "m", {"db": 0}, {})
    assert sentinels("redis://:secret@a:1/0") is None


@pytest.mark.parametrize(
    "rest",
    [
        "a:5000",
        "a:5000/",
        "/mymaster",
        "a:x/mymaster",
        "a:70000/mymaster",
        "a,,b/mymaster",
        "a/mymaster/one",
        "a/mymaster?socket_timeout=1",
        "a/my master",
    ],
)
def test_half_a_url_of_sentinels_is_refused_without_its_password(rest: str) -> None:
    with pytest.raises(ParamsError) as told:
        sentinels(f"redis+sentinel://:secret@{rest}")
    assert str(told.value).startswith(
        f"REDIS_URL: 'redis+sentinel://{rest.partition('?')[0]}' is not allowed; "
    )
    assert "redis+sentinel://:PASSWORD@HOST:PORT,HOST:PORT/NAME/DB" in str(told.value)
    assert "Next: docs/replicas.md" in str(told.value)


def test_what_is_shown_of_a_url_names_the_sentinels_and_no_password() -> None:
    assert without_password(URL) == "redis+sentinel://a:5000,b,[::1]:5001/my.master-1/3"
    told = str(connection.unavailable(URL))
    assert without_password(URL) in told and "too" not in told and "cret" not in told
    assert "Next: ask one: `redis-cli -h a -p 5000 sentinel get-master-addr-by-name my.master-1`" in told
    with connection.client(URL) as client:
        assert "cret" not in repr(client) and "too" not in repr(client)


def test_clients_by_sentinels_have_the_same_timeouts_and_no_second_try() -> None:
    url = URL.replace("redis+", "rediss+")
    pools = [connection.client(url).connection_pool, connection.beside_requests(url).connection_pool]
    pools += [connection.of_requests(url).connection_pool, connection.wires(url, socket_timeout=1)]
    for pool in pools:
        assert isinstance(pool, SentinelConnectionPool | AsyncSentinelConnectionPool)
        limits = [pool.connection_kwargs[name] for name in ("socket_timeout", "socket_connect_timeout")]
        assert all(0 < limit <= connection.ANSWER_S for limit in limits)
        assert pool.connection_kwargs["retry"].get_retries() == 0
        for asked in pool.sentinel_manager.sentinels:
            kept = asked.connection_pool.connection_kwargs
            assert kept["socket_timeout"] == kept["socket_connect_timeout"] == connection.CONNECT_S
            assert kept["password"] == "too"
    assert pools[-1].connection_class is SentinelManagedSSLConnection


def test_sentinels_that_are_away_are_one_line_as_a_redis_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_home(tmp_path, monkeypatch)
    monkeypatch.setenv("REDIS_URL", "redis+sentinel://:secret@127.0.0.1:1,127.0.0.1:2/mymaster")
    assert cli.run(["dead"]) == 1
    told = capsys.readouterr().err.strip()
    assert told.startswith(
        "endcap: REDIS_URL: redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster does not answer"
    )
    assert "\n" not in told and "secret" not in told


def test_feasts_own_store_is_told_the_sentinels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_home(tmp_path, monkeypatch)
    store = open_store("redis+sentinel://:secret@127.0.0.1:1,127.0.0.1:2/other/4")
    kept = store.config.online_store
    client = store._get_provider().online_store._get_client(kept)  # type: ignore[attr-defined]
    assert isinstance(client.connection_pool, SentinelConnectionPool)
    assert client.connection_pool.service_name == "other"
    options = client.connection_pool.connection_kwargs
    assert (options["db"], options["password"], options["socket_timeout"]) == (4, "secret", 10)


def test_a_sentinel_that_kept_a_request_waiting_is_asked_last() -> None:
    """A request of the service gives up after milliseconds: each would ask the same one that is cut off."""

    async def asked() -> list[str]:
        server = await asyncio.start_server(
            lambda *_: None, "127.0.0.1", 0
        )  # takes what is said, says nothing
        port = server.sockets[0].getsockname()[1]
        pool = connection.wires(f"redis+sentinel://127.0.0.1:{port},127.0.0.1:1/mymaster")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pool.make_connection().connect()
        server.close()
        manager = pool.sentinel_manager  # type: ignore[attr-defined]
        return [one.connection_pool.connection_kwargs["port"] for one in manager.sentinels] + [port]

    first, last, silent = asyncio.run(asked())
    assert (first, last) == (1, silent)


def test_a_node_of_a_cluster_is_refused_by_name_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_home(tmp_path, monkeypatch)
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(
        [redis_server(), *options, "--cluster-enabled", "yes"], stdout=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: _pings(port), 20)
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{port}/0")
        for job in ("dead", "stream", "serve", "embed", "rails --watch", "up"):
            assert cli.run(job.split()) == 1, job
            told = capsys.readouterr().err.strip()
            assert told == (
                f"endcap: REDIS_URL: redis://127.0.0.1:{port}/0 is a node of a Redis Cluster; allowed: "
                "one Redis, or sentinels over a primary and its replicas. Next: docs/replicas.md"
            ), job
    finally:
        server.kill()
        server.wait()


def _pings(port: int) -> bool:
    try:
        with Redis(port=port, retry=connection.ONCE) as redis:
            return bool(redis.ping())
    except RedisError:
        return False
