"""stream.replicas: an event is accepted once so many replicas have it; before that it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis, RedisError, ResponseError
from shops.eventlog_contract import event, written
from shops.sentinels import Group
from shops.service import free_port, stop
from shops.small import open_home
from shops.stream import stream_params, wait_until

from feature_repo.errors import ParamsError
from feature_repo.eventlog.keys import stream_keys
from serving.live.complaints import cause_of


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """A primary and its replica, without sentinels."""
    found = Group(tmp_path_factory.mktemp("pair"), [free_port(), free_port()], [], 0)
    try:
        found.start(found.ports[0])
        found.start(found.ports[1], found.ports[0])
        wait_until(lambda: _follows(found), 30)
        yield found
    finally:
        for process in found.processes.values():
            process.resume()
            stop(process)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_home(tmp_path, monkeypatch)


def _follows(pair: Group) -> bool:
    try:
        return bool(pair.redis(pair.ports[0]).info("replication")["connected_slaves"])
    except RedisError:
        return False


def _entries(redis: Redis) -> int:
    found: list[Any] = [redis.xlen(key) for key in stream_keys(4)]
    return sum(found)


def test_an_accepted_event_is_on_the_replica(pair: Group, home: None) -> None:
    url, before = pair.url_of(pair.ports[0]), _entries(pair.redis(pair.ports[1]))
    for number in range(60):
        found = written(url, lambda log, n=number: log.write([event(n)]), replicas=1, replicas_ms=5_000)
        assert [one.twice for one in found] == [False]
        assert _entries(pair.redis(pair.ports[1])) == before + number + 1
    change = {"item_id": "i", "type": "item_change"}
    written(url, lambda log: log.write_changes([change]), replicas=1, replicas_ms=5_000)
    assert _entries(pair.redis(pair.ports[1])) == before + 61


def test_what_no_replica_has_is_refused_by_name_also_when_it_is_sent_again(pair: Group, home: None) -> None:
    url, replica = pair.url_of(pair.ports[0]), psutil.Process(pair.processes[pair.ports[1]].pid)
    replica.suspend()
    for _ in range(2):
        with pytest.raises(ResponseError, match=r"NOREPLICAS 0 of 1 have it after 100 ms") as told:
            written(url, lambda log: log.write([event(1_000)]), replicas=1, replicas_ms=100)
        assert cause_of(told.value) == "too_few_replicas"
    assert written(url, lambda log: log.write([]), replicas=1, replicas_ms=100) == []
    assert [one.twice for one in written(url, lambda log: log.write([event(1_000)]))] == [True]  # as shipped
    replica.resume()
    found = written(url, lambda log: log.write([event(1_000)]), replicas=1, replicas_ms=5_000)
    assert [one.twice for one in found] == [True]
    with pytest.raises(ResponseError, match="NOREPLICAS 1 of 2"):
        written(url, lambda log: log.write([event(1_001)]), replicas=2, replicas_ms=100)


@pytest.mark.parametrize(("name", "value", "least"), [("replicas", -1, 0), ("replicas_ms", 0, 1)])
def test_a_wait_for_ever_is_refused_by_name(home: None, name: str, value: int, least: int) -> None:
    with pytest.raises(ParamsError, match=f"stream.{name}: {value} is not allowed; allowed: {least} or more"):
        stream_params(**{name: value})
