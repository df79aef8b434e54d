"""Nothing waits for ever unseen: every client has a timeout, every task and thread a heartbeat."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import ConnectionPool as AsyncConnectionPool

from feature_repo.features.store import open_store, store_config
from feature_repo.online import connection

pytestmark = pytest.mark.fault
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("feature_repo", "training", "serving", "monitoring", "pipelines")
# What opens a connection, by the last name of the call; each says how long it waits, at the call itself.
TIMED = {"urlopen": "timeout", "create_connection": "timeout", "AsyncClient": "timeout", "Client": "timeout"}
REDIS = {"Redis", "AsyncRedis", "StrictRedis", "from_url", "ConnectionPool", "AsyncConnectionPool"}
REDIS |= {f"{kind}Sentinel{what}" for kind in ("", "Async") for what in ("", "ConnectionPool")}
KAFKA = {"Producer", "Consumer", "AdminClient"}
# Who starts something that goes on beside its caller, and what notices when it stands still.
BEAT = {
    ("serving/service.py", "create_task"): "each in `jobs`, under a limit of `liveness`, by Pulse",
    (
        "pipelines/stream/consumer.py",
        "Thread",
    ): "Worker.beat, by the consumer; across processes its lease",
    ("pipelines/stream/rewind.py", "Thread"): "the leases that it holds, which end with it",
    (
        "feature_repo/eventlog/kafka_writer.py",
        "Thread",
    ): "`write` has a deadline, and waits for it",
    ("serving/listener.py", "create_task"): "makes the protocol of a connection, and ends with that",
    ("serving/http/waiting.py", "create_task"): "each waiter has a deadline, the next begins it anew",
    ("pipelines/local/process.py", "Thread"): "nobody waits for it; it outlives every error of its disk",
    ("serving/http/inquiry.py", "ThreadPoolExecutor"): "who asks has a deadline, and what waits a bound",
    ("pipelines/local/console.py", "Thread"): "the lookout beats in Redis; `endcap status` has its age",
    ("monitoring/erasing/errands.py", "Thread"): "its process has a limit, and the page shows how it ended",
    ("pipelines/local/install.py", "ThreadPoolExecutor"): "pip's own timeouts; the caller waits for it",
}
BESIDE = {"create_task", "ensure_future", "TaskGroup", "Thread", "Timer", "ThreadPoolExecutor"}


def named(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def calls() -> Iterator[tuple[str, ast.Call]]:
    for name, tree in modules():
        yield from ((name, node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_clients_of_redis_are_made_in_one_place() -> None:
    wrong = [
        f"{name}:{call.lineno}"
        for name, call in calls()
        if named(call.func) in REDIS and name != "feature_repo/online/connection.py"
    ]
    assert wrong == []


def test_whatever_opens_a_connection_says_how_long_it_waits() -> None:
    wrong = []
    for name, call in calls():
        called = named(call.func)
        if called in TIMED and TIMED[called] not in {word.arg for word in call.keywords}:
            wrong.append(f"{name}:{call.lineno}: {called} without {TIMED[called]}")
        if (
            called in KAFKA
            and "client_options" not in ast.unparse(call)
            and "Consumer(" not in ast.unparse(call)
        ):
            wrong.append(f"{name}:{call.lineno}: {called} without client_options")
    assert wrong == []


def test_whatever_goes_on_beside_its_caller_has_somebody_who_notices() -> None:
    found = {(name, named(call.func)) for name, call in calls() if named(call.func) in BESIDE}
    found |= {
        (name, base)
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for base in map(named, node.bases)
        if base in BESIDE
    }
    assert found <= set(BEAT), "a task without a heartbeat: give it one, and say here who looks at it"
    assert set(BEAT) <= found, "what is named here is no more"


def patience(pool: Any) -> list[Any]:
    return [pool.connection_kwargs.get(name) for name in ("socket_timeout", "socket_connect_timeout")]


def test_real_clients_have_both_timeouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "redis://127.0.0.1:1/0"
    pools = [connection.client(url).connection_pool, connection.beside_requests(url).connection_pool]
    pools += [connection.of_requests(url).connection_pool, connection.wires(url, socket_timeout=1)]
    assert all(timeout and timeout <= connection.ANSWER_S for pool in pools for timeout in patience(pool))
    assert isinstance(pools[-1], AsyncConnectionPool)
    assert all(timeout <= connection.QUICK_S for pool in pools[1:] for timeout in patience(pool))


def test_feast_s_own_client_has_both_timeouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    store = open_store("redis://:secret@127.0.0.1:1/2")
    client = store._get_provider().online_store._get_client(store.config.online_store)  # type: ignore[attr-defined]
    assert all(patience(client.connection_pool))
    told = store_config(tmp_path / "r.db", "redis://h").online_store.connection_string
    assert told.endswith(",socket_timeout=10,socket_connect_timeout=10")


def test_the_reader_of_a_request_has_both_timeouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.live.online_features import OnlineFeatures

    monkeypatch.setenv("ENDCAP_HOME", str(tmp_path))
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())

    async def opened() -> list[Any]:
        features = OnlineFeatures("redis://127.0.0.1:1/0", ["a"])
        assert features._wire.patience_s <= connection.QUICK_S
        return [*patience(features._redis.connection_pool), patience(features._wire._pool)[1]]

    assert all(asyncio.run(opened()))
