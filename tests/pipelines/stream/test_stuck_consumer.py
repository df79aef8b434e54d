"""A task of the stream that neither works nor waits ends its process; clocks that jump lose no event."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shops.stream import (
    LIVE,
    assert_same,
    behind,
    consumer,
    folded,
    open_shop,
    post,
    rows,
    stream_params,
    worker,
)

from feature_repo.clock import HOUR_MS
from feature_repo.eventlog.keys import MEMBERS, partition_of, stream_key
from feature_repo.eventlog.open import open_log
from pipelines.stream.consumer import StuckError
from pipelines.stream.members import Members
from pipelines.stream.worker import Worker

KEYS = {"user_history": [], "session_context": ["session 3"], "item_activity": []}


@pytest.fixture
def redis(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from open_shop(tmp_path, monkeypatch, redis_url)


def test_a_task_that_is_stuck_ends_its_process_and_the_next_goes_on(
    redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, let_go = threading.Event(), threading.Event()
    step = Worker.step

    def stuck(self: Worker) -> int:
        if self.task.name == "items":
            hanging.set()
            let_go.wait()
        return step(self)

    post(redis, LIVE[:50])
    with monkeypatch.context() as patch:
        patch.setattr(Worker, "step", stuck)
        one = consumer(stuck_s=1.0)
        try:
            with pytest.raises(StuckError, match=r"stream: items has been stuck for \d+ s, more than"):
                one.run()
            assert hanging.is_set()
        finally:
            for running in one._running.values():
                running.stopping.set()
            let_go.set()
    consumer("two").run(until_empty=True)
    assert behind(redis) == 0
    assert_same(rows(redis), folded(LIVE[:50]))


@pytest.mark.parametrize("hours", [-1, 1], ids=["set back", "set ahead"])
def test_the_log_goes_on_when_the_clock_of_redis_jumps(redis: Any, hours: int) -> None:
    """What was written before the jump bears the other time; what is written after it stands behind."""
    first, second = LIVE[:40], LIVE[40:80]
    post(redis, first)
    now = int(time.time() * 1000)
    for p in range(4):  # as if the first had been written while the clock stood otherwise
        entries = redis.xrange(stream_key(p))
        redis.delete(stream_key(p))
        for n, (_, fields) in enumerate(entries, 1):
            redis.xadd(stream_key(p), fields, id=f"{now - hours * HOUR_MS}-{n}")
    redis.zadd(MEMBERS, {"a process of then": now - hours * HOUR_MS})
    post(redis, second)
    numbers = [number for number, _ in redis.xrange(stream_key(0))]
    assert numbers == sorted(numbers, key=lambda one: [int(part) for part in one.split(b"-")])
    lag = open_log(redis, stream_params()).lag()
    assert all(0 <= one.seconds <= 3_700 and one.events == 80 for one in lag.values())
    assert Members(redis, "one", 1_000).beat() == ["one"]
    consumer().run(until_empty=True)
    assert behind(redis) == 0
    assert_same(rows(redis), folded(LIVE[:80]))


@pytest.mark.parametrize("hours", [-1, 1], ids=["set back", "set ahead"])
def test_what_is_sent_again_after_a_jump_counts_once(redis: Any, hours: int) -> None:
    """Marks are kept by the event's own time, so the clock of who applies it does not matter."""
    events = [{**event, "session_id": "session 3", "user_id": None} for event in LIVE[:30]]
    post(redis, events)
    task = f"visitors:{partition_of('session 3', 4)}"
    one = worker(redis, task)
    assert one.take_over()
    while one.step():
        pass
    before = rows(redis, KEYS)
    post(redis, [{**event, "created_ts": event["created_ts"] + hours * HOUR_MS * 1000} for event in events])
    while one.step():
        pass
    assert rows(redis, KEYS) == before
    assert_same(before, folded(events, KEYS))


def test_a_lease_that_a_jump_ended_is_taken_again_and_nothing_counts_twice(redis: Any) -> None:
    post(redis, LIVE[:30])
    one = consumer()
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        for _ in range(5):  # Redis ends a lease by the wall's clock
            for key in redis.scan_iter("endcap:stream:lease:*"):
                redis.delete(key)
            time.sleep(0.05)
        post(redis, LIVE[30:60])
        deadline = time.monotonic() + 60
        while behind(redis) and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        one.stop()
        thread.join()
    assert_same(rows(redis), folded(LIVE[:60]))
