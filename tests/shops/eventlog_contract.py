"""What every log of events keeps to. A new log gets its suite by a class with the fixture `redis`.

`redis` is the shop's Redis, ENDCAP_HOME is a folder with params.yaml, and the environment names the log.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
import pytest
import redis.asyncio
from shops.stream import stream_params, wait_until

from feature_repo.errors import UnavailableError
from feature_repo.eventlog.contract import Entry, EventLog, EventWriter, Holder, Lag
from feature_repo.eventlog.keys import (
    APPLIED,
    GROUPS,
    ITEM_CHANGE,
    SAID,
    applied_field,
    order,
    partition_of,
)
from feature_repo.eventlog.open import open_log, open_tail, open_writer

T = TypeVar("T")
LEASE = "endcap:stream:lease:contract"


def event(number: int, session: str = "s1", **other: Any) -> dict[str, Any]:
    return {"event_id": f"e{number}", "session_id": session, "user_id": None, "consent": True} | other


def written(url: str, job: Callable[[EventWriter], Awaitable[T]], **params: Any) -> T:
    """The answer of `job`, which is handed a writer."""

    async def run() -> T:
        client = redis.asyncio.Redis.from_url(url)
        writer = open_writer(client, stream_params(**params), 60)
        try:
            return await job(writer)
        finally:
            await writer.close()
            await client.aclose()

    return asyncio.run(run())


class EventLogContract:
    """Inherit it in a class of tests."""

    @pytest.fixture
    def log(self, redis: Any) -> Any:
        redis.set(LEASE, "reader")
        found = open_log(redis, stream_params(), GROUPS[0], Holder(LEASE, "reader"))
        yield found
        found.close()

    @staticmethod
    def read(log: EventLog, count: int) -> list[Entry]:
        """`count` entries, and no more than these."""
        found: list[Entry] = []
        wait_until(lambda: found.extend(log.read(10, 50)) or len(found) >= count)
        assert len(found) == count
        return found

    def test_an_empty_log_has_no_end_no_lag_and_nothing_to_read(self, log: EventLog) -> None:
        log.open({0: None})
        assert log.ends() == dict.fromkeys(range(4))
        assert log.lag() == dict.fromkeys(GROUPS, Lag(0, 0.0))
        assert log.read(10, 10) == []

    def test_entries_come_in_order_with_their_bytes_and_whom_they_are_for(self, log: EventLog) -> None:
        for number in range(3):
            log.append(1, b"event %d" % number, None)
        log.append(1, b"\xff\x00", "items")
        log.append(2, b"elsewhere", None)
        log.open({1: None})
        found = self.read(log, 4)
        assert [(e.partition, e.raw, e.only) for e in found] == [
            *((1, b"event %d" % number, None) for number in range(3)),
            (1, b"\xff\x00", "items"),
        ]
        assert [order(e.position) for e in found] == sorted(order(e.position) for e in found)
        assert log.ends()[1] == found[-1].position and log.ends()[0] is None

    def test_reading_goes_on_after_the_position_that_it_is_opened_at(self, log: EventLog) -> None:
        for number in range(5):
            log.append(0, b"%d" % number, None)
        log.open({0: None})
        first = self.read(log, 5)
        log.open({0: first[2].position})
        assert [e.raw for e in self.read(log, 2)] == [b"3", b"4"]
        log.open({0: first[4].position})
        assert log.read(10, 20) == []
        log.append(0, b"5", None)
        assert [e.raw for e in self.read(log, 1)] == [b"5"]

    def test_a_reader_of_several_partitions_gets_all_of_each(self, log: EventLog) -> None:
        for number in range(40):
            log.append(number % 4, b"%d" % number, None)
        log.open(dict.fromkeys(range(4)))
        found = self.read(log, 40)
        for p in range(4):
            assert [int(e.raw) for e in found if e.partition == p] == list(range(p, 40, 4))

    def test_a_reader_without_work_wakes_when_some_comes(self, log: EventLog) -> None:
        log.open({0: None})
        late = threading.Timer(0.2, log.append, (0, b"at last", None))
        late.start()
        found: list[Entry] = []
        wait_until(lambda: found.extend(log.read(10, 5_000)) or found)
        assert [e.raw for e in found] == [b"at last"]
        late.join()

    def test_lag_counts_what_each_group_has_not_applied_and_since_when(
        self, redis: Any, log: EventLog
    ) -> None:
        for number in range(6):
            log.append(number % 2, b"%d" % number, None)
        log.open({0: None})
        second = self.read(log, 3)[1].position
        redis.hset(APPLIED, mapping={applied_field(GROUPS[0], 0): second})
        redis.hset(APPLIED, mapping={applied_field(GROUPS[1], p): at for p, at in log.ends().items() if at})
        wait_until(lambda: log.lag()[GROUPS[0]].seconds > 0.1)
        found = log.lag()
        assert found[GROUPS[0]].events == 4 and found[GROUPS[0]].seconds < 60
        assert found[GROUPS[1]] == Lag(0, 0.0)

    def test_what_is_forgotten_is_behind_nobody(self, redis: Any, log: EventLog) -> None:
        for number in range(4):
            log.append(number % 2, b"old", None)
        log.forget()
        assert all(lag.events == 0 for lag in log.lag().values())
        log.append(1, b"new", None)
        assert all(lag.events == 1 for lag in log.lag().values())
        applied = redis.hget(APPLIED, applied_field(GROUPS[0], 1))
        log.open({1: applied.decode() if applied else None})
        assert [e.raw for e in self.read(log, 1)] == [b"new"]

    def test_the_writer_tells_where_an_event_stands_and_a_resend_the_same(
        self, redis_url: str, log: EventLog
    ) -> None:
        events = [event(1), event(2, "s2"), event(1), event(3)]

        async def twice(writer: EventWriter) -> Any:
            return await writer.write(events), await writer.write([event(9), *events])

        first, second = written(redis_url, twice)
        assert [one.twice for one in first] == [False, False, True, False]
        assert [one.twice for one in second] == [False, True, True, True, True]
        assert [one[:2] for one in second[1:]] == [one[:2] for one in first]
        assert first[0].partition == partition_of("s1", 4) and first[1].partition == partition_of("s2", 4)
        assert first[0][:2] == first[2][:2] and order(first[3].position) > order(first[0].position)
        log.open(dict.fromkeys(range(4)))
        found = self.read(log, 4)
        assert {(e.partition, e.position) for e in found} == {one[:2] for one in (*first, second[0])}

    def test_one_id_in_two_visits_is_two_events_and_each_resend_is_known(
        self, redis_url: str, log: EventLog
    ) -> None:
        squat, real = event(1, "stranger", type="purchase_completed"), event(1, type="purchase_completed")

        async def post(writer: EventWriter) -> Any:
            return [(await writer.write([one]))[0].twice for one in (squat, real, real, squat)]

        assert written(redis_url, post) == [False, False, True, True]
        log.open(dict.fromkeys(range(4)))
        assert sorted(orjson.loads(e.raw)["session_id"] for e in self.read(log, 2)) == ["s1", "stranger"]

    def test_changes_of_items_are_for_one_group_in_order_and_no_events(
        self, redis: Any, redis_url: str, log: EventLog
    ) -> None:
        said = [{"type": ITEM_CHANGE, "item_id": "mug", "event_ts": n} for n in (1, 2, 2)]

        async def both(writer: EventWriter) -> Any:
            changes = await writer.write_changes(said)
            return changes, await writer.write([event(1, "mug")])

        changes, events = written(redis_url, both)
        assert {one.partition for one in (*changes, *events)} == {partition_of("mug", 4)}
        assert not any(one.twice for one in changes)
        log.open(dict.fromkeys(range(4)))
        found = self.read(log, 4)
        assert [entry.only for entry in found] == ["items"] * 3 + [None]
        assert [orjson.loads(entry.raw) for entry in found[:3]] == said
        tail = open_tail(redis, stream_params(), "0-0", 2)
        assert [one["event_id"] for _, one in tail.next()] == ["e1"] and tail.next() == []
        for _ in range(6):  # notes that nobody writes down; 4 entries wait to be applied
            redis.xadd(SAID, {"change": "1"})
        with pytest.raises(UnavailableError, match=r"6 (events|changes) wait"):
            written(redis_url, lambda writer: writer.write_changes(said), max_backlog=5)

    def test_the_writer_refuses_all_of_a_post_when_too_much_waits(
        self, redis_url: str, log: EventLog
    ) -> None:
        async def fill(writer: EventWriter) -> None:
            await writer.write([event(number) for number in range(6)])
            assert {lag.events for lag in (await writer.lag()).values()} == {6}
            with pytest.raises(UnavailableError, match="6 events wait to be applied, more than 5"):
                await writer.write([event(number) for number in range(6, 9)])

        written(redis_url, fill, max_backlog=5)
        assert sum(1 for at in log.ends().values() if at) == 1
        log.open(dict.fromkeys(range(4)))
        assert len(self.read(log, 6)) == 6 and log.read(10, 20) == []

    def test_a_watcher_reads_every_event_once_and_goes_on(self, redis: Any, log: Any) -> None:
        tail = open_tail(redis, stream_params(), "0-0", limit=100)
        assert tail.next() == []
        for number in range(10):
            log.append(number % 4, orjson.dumps({"n": number}), None)
        assert sorted(record["n"] for _, record in tail.next()) == list(range(10))
        log.append(2, orjson.dumps({"n": 10}), None)
        assert [record for _, record in tail.next()] == [{"n": 10}] and tail.next() == []
