"""Stream: a connection that breaks at the commit, before or after Redis executed it, counts nothing twice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis
from shops.stream import LIVE, assert_same, folded, open_shop, post, rows, wait_until, worker

from feature_repo.eventlog.keys import partition_of

SESSION = "session 3"
EVENTS = [
    {**event, "type": "product_viewed", "user_id": None, "session_id": SESSION, "item_id": "item 1"}
    for event in LIVE[:10]
]
KEYS = {"user_history": [], "session_context": [SESSION], "item_activity": ["item 1"]}


class CutWire:
    """A port that hands on to Redis and, once `armed`, breaks the connection at the next EXEC."""

    def __init__(self, redis_port: int, executed: bool) -> None:
        self._redis_port, self._executed = redis_port, executed
        self.armed, self.cuts = False, 0
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._redis_port))
            threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        while data := _received(client):
            if self.armed and b"EXEC" in data:
                self.armed, self.cuts = False, self.cuts + 1
                client.shutdown(socket.SHUT_RDWR)
                if self._executed:
                    server.sendall(data)
                    _received(server)
                break
            server.sendall(data)
        client.close()
        server.close()

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := _received(server):
                client.sendall(data)
        except OSError:
            pass

    def close(self) -> None:
        self._door.close()


def _received(peer: socket.socket) -> bytes:
    try:
        return peer.recv(1 << 16)
    except OSError:
        return b""


@pytest.fixture
def redis(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from open_shop(tmp_path, monkeypatch, redis_url)


@pytest.mark.parametrize("executed", [True, False], ids=["reply lost", "never executed"])
@pytest.mark.parametrize("task", [f"visitors:{partition_of(SESSION, 4)}", "items"])
def test_a_commit_whose_connection_breaks_counts_once(
    redis: Any, redis_url: str, task: str, executed: bool
) -> None:
    post(redis, EVENTS)
    wire = CutWire(urlsplit(redis_url).port or 0, executed)
    one = worker(Redis(port=wire.port, socket_timeout=5), task)
    stop = threading.Event()
    thread = threading.Thread(target=one.run, args=(stop,))
    assert one.take_over()
    wire.armed = True
    thread.start()
    try:
        wait_until(lambda: wire.cuts == 1 and one.applied >= (0 if executed else len(EVENTS)))
        expected = folded(EVENTS, KEYS)
        mine = {
            entity: row
            for entity, row in expected.items()
            if (entity[0] == "item_activity") == (task == "items")
        }
        wait_until(lambda: set(rows(redis, KEYS)) == set(mine))
        post(redis, [{**EVENTS[0], "event_id": "another"}])
        wait_until(lambda: one.applied >= (1 if executed else len(EVENTS) + 1))
    finally:
        stop.set()
        thread.join()
        wire.close()
    again = folded([*EVENTS, EVENTS[0]], KEYS)
    assert_same(rows(redis, KEYS), {entity: again[entity] for entity in mine})
