"""Two workers on one socket share those who connect, whoever the kernel wakes first."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from shops.stand import HERO, Stand

from serving.listener import PATIENCE_S, Listener, Tally

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


def shared(shop: Stand, many: int, tries: int = 4) -> None:
    """The workers have equally many, once of `tries`: one that gets no processor is not waited for."""
    for _ in range(tries):
        with ExitStack() as held:
            found = connected(shop, many, held)
        assert found.total() == many
        apart = 2 * max(found.values()) - many  # another client may be there, too
        if apart <= 2:
            return
        shop.until(lambda: not any(_clients(pid) for pid in shop.pids()))
    raise AssertionError(f"{dict(found)}, the last of {tries} tries")


def test_connections_that_come_at_once_are_shared_evenly(shop: Stand) -> None:
    shared(shop, 20)


def test_who_left_makes_room_where_he_was(shop: Stand) -> None:
    with ExitStack() as soon:
        connected(shop, 8, soon)
    shop.until(lambda: not any(_clients(pid) for pid in shop.pids()))
    shared(shop, 10)


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


def test_a_worker_that_ends_under_load_resets_nobody_and_the_other_goes_on(shop: Stand) -> None:
    seen: Counter[str] = Counter()
    over, port = threading.Event(), int(shop.url.rpartition(":")[2])

    def shopper(name: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while not over.is_set():
            try:
                connection.request("POST", "/v1/recommend", json.dumps({**HERO, "session_id": name}))
                answer = connection.getresponse()
                answer.read()
                seen[str(answer.status)] += 1
                time.sleep(0.005)
            except OSError as error:
                seen[type(error).__name__] += 1
                connection.close()
        connection.close()

    threads = [threading.Thread(target=shopper, args=(f"visit {number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        shop.until(lambda: seen["200"] > 200)
        (one, *_) = before = sorted(shop.pids())
        os.kill(one, signal.SIGTERM)
        shop.until(lambda: len(shop.pids() - {one}) == 2 and not psutil.pid_exists(one))
        answered = seen["200"]
        shop.until(lambda: seen["200"] > answered + 200)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert set(seen) == {"200"}, seen
    assert set(before[1:]) <= shop.pids()


def test_who_gave_way_gives_way_to_the_next_one_too(tmp_path: Path) -> None:
    """Another worker has fewer connections and is busy: each newcomer is kept for it as long, also after it
    has taken one."""
    Tally.make(tmp_path / "tally", 2)
    mine, theirs = (Tally(tmp_path / "tally", own) for own in (0, 1))
    theirs.say(0)

    async def waits() -> tuple[float, float]:
        loop, made = asyncio.get_running_loop(), asyncio.Event()

        class Greeted(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                made.set()
                transport.close()

        with socket.create_server(("127.0.0.1", 0)) as door, ExitStack() as held:
            listener = Listener(door, Greeted, [1, 2, 3], mine)

            async def let_in() -> float:
                made.clear()
                held.enter_context(socket.create_connection(door.getsockname()))
                began = loop.time()
                await asyncio.wait_for(made.wait(), 20)
                return loop.time() - began

            first = await let_in()
            held.enter_context(socket.create_connection(door.getsockname()))
            await asyncio.sleep(PATIENCE_S / 6)
            with suppress(BlockingIOError):  # a slow machine has let him in already
                held.enter_context(door.accept()[0])
            await asyncio.sleep(10 * PATIENCE_S)
            third = await let_in()
            listener.close()
            return first, third

    assert min(asyncio.run(waits())) >= PATIENCE_S
