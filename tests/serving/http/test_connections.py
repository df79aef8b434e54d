"""Connections of strangers: silent, slow, greedy or broken ones cost others nothing; an end is in order."""

from __future__ import annotations

import http.client
import resource
import socket
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import orjson
import psutil
import pytest
from shops.service import running_service

if TYPE_CHECKING:
    from shops.service import Service

pytestmark = pytest.mark.fault
HERO = b'{"surface": "homepage_hero", "session_id": "s1"}'
HEAD = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(HERO)
WAIT_S = 60


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """1,024 files a process, as many systems allow, and short times."""
    changed = {"idle_timeout_s": 2.0, "request_timeout_s": 3.0, "traffic_timeout_s": 5.0}
    with running_service(tmp_path_factory.mktemp("connections"), changed, files=1024) as found:
        yield found


def peer(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(service.url.rsplit(":", 1)[1])), timeout=WAIT_S)


def rest(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            found += part
    return found


def served(service: Service) -> bool:
    answer = httpx.post(f"{service.url}/v1/recommend", content=HERO, timeout=WAIT_S)
    return answer.status_code == 200 and len(answer.json()["items"]) == 12


def test_who_says_nothing_is_hung_up_on(service: Service) -> None:
    with peer(service) as silent, peer(service) as once, peer(service) as blank:
        once.sendall(HEAD + b"\r\n" + HERO)
        blank.sendall(b"\r\n")
        assert rest(silent) == b"" and rest(blank) == b""
        assert rest(once).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("drop", [b"X-Slow: 1\r\n", b"x", b"\r\n"])
def test_a_request_that_drips_in_is_told_so_and_closed(service: Service, drop: bytes) -> None:
    with peer(service) as slow:
        slow.sendall(HEAD if drop != b"\r\n" else b"\r\n")
        slow.settimeout(0.2)
        answer, began = b"", time.monotonic()
        while True:
            try:
                part = slow.recv(65_536)
                if not part:
                    break
                answer += part
            except TimeoutError:
                with suppress(BrokenPipeError, ConnectionResetError):
                    slow.sendall(drop)
            except ConnectionResetError:
                break
            assert time.monotonic() - began < WAIT_S
        assert answer.startswith(b"HTTP/1.1 408") == (drop != b"\r\n"), answer


def test_a_body_that_drips_in_is_closed(service: Service) -> None:
    with peer(service) as slow:
        slow.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        slow.settimeout(0.2)
        began = time.monotonic()
        while time.monotonic() - began < WAIT_S:
            try:
                if not slow.recv(65_536):
                    break
            except TimeoutError:
                with suppress(BrokenPipeError, ConnectionResetError):
                    slow.sendall(b" ")
            except ConnectionResetError:
                break
        else:
            pytest.fail("it may drip for ever")


@pytest.mark.parametrize(
    "head",
    [
        b"X-A: 1\r\n" * 101,
        b"X-Long: " + b"a" * 40_000 + b"\r\n",
        b"X-Endless: " + b"a" * 8_000_000,
        b"".join(b"X-%d: %s\r\n" % (i, b"a" * 1000) for i in range(60)),
    ],
)
def test_too_much_head_is_a_431_and_is_not_kept(service: Service, head: bytes) -> None:
    (worker,) = service.workers()
    before = worker.memory_info().rss
    with peer(service) as greedy:
        with suppress(BrokenPipeError, ConnectionResetError):
            greedy.sendall(HEAD + head + b"\r\n")
        answer = rest(greedy)
    if answer:  # else what was still coming cut it off
        assert answer.startswith(b"HTTP/1.1 431")
        error = orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert (error["field"], error["allowed"]) == ("headers", "100, with the address 32768 bytes")
    assert worker.memory_info().rss - before < 4_000_000
    assert served(service)


def test_who_closes_the_sending_half_gets_the_answer(service: Service) -> None:
    with peer(service) as half:
        half.sendall(HEAD + b"\r\n" + HERO)
        half.shutdown(socket.SHUT_WR)
        head, _, body = rest(half).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200") and len(orjson.loads(body)["items"]) == 12
    with peer(service) as cut:
        cut.sendall(HEAD + b"\r\n" + HERO[:10])
        cut.shutdown(socket.SHUT_WR)
        assert rest(cut).startswith(b"HTTP/1.1 400")


def test_thousands_of_silent_strangers_shut_nobody_out(service: Service) -> None:
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(most, 4096)), most))  # of the strangers
    with ExitStack() as stack:
        for number in range(2300):
            stranger = stack.enter_context(peer(service))
            if number % 3 == 0:
                stranger.sendall(b"GET /v1/recommend")  # and no more
            if number % 100 == 0:
                assert served(service), number
        assert served(service)
        (worker,) = service.workers()
        assert worker.num_fds() < 900
    assert "Too many open files" not in service.log.read_text()


def test_bad_requests_do_not_fill_the_log(service: Service) -> None:
    before = service.log.stat().st_size
    for _ in range(300):
        with peer(service) as broken:
            broken.sendall(b"\x00\x01\r\n\r\n")
            assert rest(broken).startswith(b"HTTP/1.1 400")
    assert service.log.stat().st_size - before < 2_000


def test_nothing_but_the_service_listens_and_the_control_sockets_are_the_owners(service: Service) -> None:
    family = [service.process, *service.process.children(recursive=True)]
    found = [c for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert {c.laddr.port for c in found} == {int(service.url.rsplit(":", 1)[1])}
    paths = {
        Path(c.laddr) for c in service.process.net_connections("unix") if c.laddr and c.laddr.startswith("/")
    }
    assert {path.name for path in paths} >= {"control", "events"}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in paths} == {0o700}


def test_an_end_under_load_resets_nobody(service: Service) -> None:  # the last: it ends the service
    seen: Counter[str] = Counter()
    over, visits = threading.Event(), count()
    port = int(service.url.rsplit(":", 1)[1])

    def shopper() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        while not over.is_set():
            visit = {
                "surface": "homepage_hero",
                "session_id": f"visit {next(visits)}",
            }
            try:
                connection.request("POST", "/v1/recommend", orjson.dumps(visit))
                answer = connection.getresponse()
                answer.read()
                seen[str(answer.status)] += 1
                time.sleep(0.002)
            except OSError as error:
                seen[type(error).__name__] += 1
                connection.close()
                time.sleep(0.05)
        connection.close()

    def waiter() -> None:
        body = orjson.dumps({"events": [{"type": "product_viewed", "session_id": "s", "item_id": "item-1"}]})
        answer = httpx.post(f"{service.url}/v1/events?wait=1", content=body, timeout=WAIT_S)
        seen[f"waited {answer.json()['applied']}"] += 1

    threads = [threading.Thread(target=shopper) for _ in range(6)] + [threading.Thread(target=waiter)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + WAIT_S
    while seen["200"] < 300:
        assert time.monotonic() < deadline, seen
        time.sleep(0.01)
    family = [service.process, *service.process.children(recursive=True)]
    began = time.monotonic()
    service.process.terminate()
    _, left = psutil.wait_procs(family, timeout=WAIT_S)
    took = time.monotonic() - began
    over.set()
    for thread in threads:
        thread.join()
    assert not left and took < 8, took  # one that waits would wait for 10 s
    assert set(seen) == {"200", "ConnectionRefusedError", "waited False"}, seen
