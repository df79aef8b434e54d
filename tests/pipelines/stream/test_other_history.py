"""A replica that took over may lack the last batches: a consumer then holds what is of another Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from shops.stream import LIVE, assert_same, behind, folded, open_shop, post, rows, wait_until, worker

from feature_repo.eventlog.contract import LeaseLostError
from feature_repo.eventlog.keys import partition_of
from feature_repo.online import changes

SESSION, ITEM = "session 3", "item 1"
EVENTS = [
    {**event, "type": "product_viewed", "user_id": None, "session_id": SESSION, "item_id": ITEM}
    for event in LIVE[:9]
]
TASK = f"visitors:{partition_of(SESSION, 4)}"
VIEWS = {TASK: "session_context", "items": "item_activity"}


@pytest.fixture
def redis(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from open_shop(tmp_path, monkeypatch, redis_url)


def held(redis: Any) -> dict[bytes, bytes]:
    return {key: redis.dump(key) for key in redis.scan_iter()}


def hold(redis: Any, dumps: dict[bytes, bytes]) -> None:
    """All of Redis is as it was, as on a replica that got nothing since."""
    with redis.pipeline(transaction=True) as pipe:
        pipe.flushall()
        for key, dumped in dumps.items():
            pipe.restore(key, 0, dumped)
        pipe.execute()


@pytest.mark.parametrize("delivered", [True, False], ids=["delivered there", "not delivered there"])
@pytest.mark.parametrize("task", VIEWS)
def test_what_the_new_primary_lacks_is_applied_to_it_once(redis: Any, task: str, delivered: bool) -> None:
    one = worker(redis, task)
    assert one.take_over()
    post(redis, EVENTS[:3])
    assert one.step() == 3
    post(redis, EVENTS[3:6])
    if delivered:
        entries = one._log.read(64, 10)
        before = held(redis)
        one.handle(entries)
    else:
        before = held(redis)
        assert one.step() == 3
    hold(redis, before)
    post(redis, EVENTS[6:])
    with suppress(LeaseLostError):
        one.step()  # as if its connection had found the other Redis between two commands
    stop = threading.Event()
    thread = threading.Thread(target=one.run, args=(stop,))
    thread.start()
    try:
        keys = {"user_history": [], "session_context": [SESSION], "item_activity": [ITEM]}
        expected = {of: row for of, row in folded(EVENTS, keys).items() if of[0] == VIEWS[task]}
        wait_until(lambda: {of: ts for of, (ts, _) in rows(redis, keys).items()} == _stamps(expected))
        assert_same(rows(redis, keys), expected)
    finally:
        stop.set()
        thread.join()
    assert behind(redis) == len(EVENTS)  # the other group is not at work


def _stamps(expected: Any) -> dict[Any, int]:
    return {of: ts for of, (ts, _) in expected.items()}


def test_a_reader_reads_all_rows_anew_where_the_history_of_redis_is_another(redis: Any) -> None:
    changes.mark(redis)
    changes.announce(redis, ["a"])
    seen = changes.seen(redis)
    changes.announce(redis, ["b"])
    assert changes.since(redis, seen).items == ["b"]
    news = changes.since(redis, seen._replace(history="of the primary before"))
    assert (news.items, news.listings) == (None, None)
    assert changes.since(redis, news.seen).items == []
