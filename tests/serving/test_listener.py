"""Two workers on one socket share those who connect, whoever the kernel wakes first."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from shops.stand import Stand

from serving.listener import Tally

pytest_plugins = ("shops.stand",)
ASKED = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def shop(stand: Stand) -> Iterator[Stand]:
    """Two workers of one release."""
    stand.release("one")
    stand.serve()
    yield stand


def connected(shop: Stand, many: int, held: ExitStack) -> Counter[int]:
    """Worker -> how many of `many` connections, opened at once and each asked once, are its own."""
    port = int(shop.url.rpartition(":")[2])
    address = "127.0.0.1", port
    ours = [held.enter_context(socket.create_connection(address, timeout=20)) for _ in range(many)]
    for wire in ours:
        wire.sendall(ASKED)
    for wire in ours:
        assert b" 200 " in wire.recv(1024)
    names = {wire.getsockname() for wire in ours}
    return Counter(
        pid for pid in shop.pids() for one in psutil.Process(pid).net_connections() if one.raddr in names
    )


def test_connections_that_come_at_once_are_shared_evenly(shop: Stand) -> None:
    with ExitStack() as held:
        found = connected(shop, 20, held)
    assert found.total() == 20
    assert max(found.values()) - min(found.values()) <= 2  # another client may have been there


def test_who_left_makes_room_where_he_was(shop: Stand) -> None:
    with ExitStack() as held:
        with ExitStack() as soon:
            connected(shop, 8, soon)
        shop.until(lambda: not any(_clients(pid) for pid in shop.pids()))
        found = connected(shop, 10, held)
    assert found.total() == 10
    assert max(found.values()) - min(found.values()) <= 2


def test_a_worker_that_hangs_or_died_is_not_waited_for(shop: Stand) -> None:
    one, other = sorted(shop.pids())
    with ExitStack() as held:
        connected(shop, 6, held)
        os.kill(one, signal.SIGSTOP)
        try:
            began = time.monotonic()
            found = connected(shop, 5, held)
            assert found == {other: 5}
            assert time.monotonic() - began < 5  # of 20 s that a client waits
        finally:
            os.kill(one, signal.SIGCONT)
        os.kill(one, signal.SIGKILL)
        shop.until(lambda: len(shop.pids() - {one}) == 2 and shop.ready())
        assert connected(shop, 4, held).total() == 4


def _clients(pid: int) -> int:
    return sum(one.status == psutil.CONN_ESTABLISHED and bool(one.raddr) for one in _accepted(pid))


def _accepted(pid: int) -> list[psutil._common.pconn]:
    process = psutil.Process(pid)
    listening = {one.laddr.port for one in process.net_connections() if one.status == psutil.CONN_LISTEN}
    return [one for one in process.net_connections() if one.laddr.port in listening]


def test_a_tally_counts_only_workers_that_live(tmp_path: Path) -> None:
    Tally.make(tmp_path / "tally", 2)
    mine, theirs = (Tally(tmp_path / "tally", own) for own in (0, 1))
    assert not mine.fewer(5)  # nobody else has come up
    theirs.say(3)
    assert mine.fewer(4)
    assert not mine.fewer(3)
    mine.say(1)
    assert theirs.fewer(3)
    assert not theirs.fewer(1)
