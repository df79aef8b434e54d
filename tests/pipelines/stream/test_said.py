"""What is said of items live: each word once, in its time, online as offline, whatever dies."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis
from shops.small import ITEMS, open_home, random_events, write_raw
from shops.stream import PARTITIONS, behind, consumer, wait_until, worker

from feature_repo.clock import instant
from feature_repo.eventlog.keys import DEAD, ITEM_CHANGE, SAID, partition_of
from feature_repo.eventlog.lua import append
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.store import open_store
from feature_repo.features.words import COLUMNS, Words, row_of, tell
from feature_repo.offline import item_log
from feature_repo.offline.build import main as features
from feature_repo.offline.timeline import ItemTimeline
from feature_repo.online import changes
from feature_repo.online.lifetimes import GONE_S
from feature_repo.online.rows import OnlineView, read_rows
from feature_repo.places import ITEM_LOG, at
from pipelines.parity.cuts import Cut, home_before
from pipelines.stream.materialize import materialize
from pipelines.stream.notes import MOST_SMALL, drain
from pipelines.stream.rewind import rewind
from pipelines.stream.worker import Worker
from serving.live.online_features import OnlineFeatures

EVENTS = random_events(seed=5, count=300)
END = EVENTS[-1]["event_ts"] + 1
VIEW = OnlineView(ITEM_CATALOGUE)


@pytest.fixture
def redis(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    folder = open_home(tmp_path, monkeypatch)
    write_raw(folder, EVENTS)
    features()
    monkeypatch.setenv("REDIS_URL", redis_url)
    with Redis.from_url(redis_url) as client:
        materialize(client, open_store(), instant(END), 100, fresh=True)
        yield client


def say(redis: Any, item: str, ts: int, deleted: bool = False, **said: Any) -> None:
    """Append a change, as the door does."""
    entry = {"type": ITEM_CHANGE, "item_id": item, "event_ts": ts, "created_ts": ts + 5}
    entry |= {"said": {**said, "deleted": deleted}}
    append(redis, partition_of(item, PARTITIONS), orjson.dumps(entry), only="items")


def applied(redis: Redis) -> Worker:
    """All that waits is in the rows, by a worker that has just taken over."""
    one = worker(redis, "items")
    assert one.take_over()
    while one.step():
        pass
    one._release()
    return one


def held(redis: Redis, item: str) -> tuple[int, Mapping[str, Any]]:
    (found,) = read_rows(redis, VIEW, [item])
    assert found is not None
    return found


def test_a_change_moves_what_it_names_and_the_row_carries_its_instant(redis: Redis) -> None:
    before = held(redis, ITEMS[1])[1]
    say(redis, ITEMS[1], END + 10, price=99.5)
    applied(redis)
    assert held(redis, ITEMS[1]) == (END + 10, {**before, "price": 99.5})
    say(redis, ITEMS[1], END + 20, price=None, stock=0)
    applied(redis)
    assert held(redis, ITEMS[1]) == (END + 20, {**before, "price": None, "stock": 0})
    assert changes.applied_ts(redis) == END - 1  # no shopper's clock moves


def test_an_older_change_after_a_newer_one_moves_only_what_the_newer_left(redis: Redis) -> None:
    say(redis, ITEMS[1], END + 20, price=2.0)
    say(redis, ITEMS[1], END + 10, price=1.0, stock=7)
    applied(redis)
    ts, row = held(redis, ITEMS[1])
    assert (ts, row["price"], row["stock"]) == (END + 20, 2.0, 7)


def test_what_is_said_again_changes_nothing_and_neither_does_the_log_read_again(redis: Redis) -> None:
    for ts, price in ((10, 1.0), (20, 2.0), (30, 1.0)):
        say(redis, ITEMS[1], END + ts, price=price)
    say(redis, ITEMS[1], END + 30, price=1.0)
    one = applied(redis)
    before = held(redis, ITEMS[1])
    assert before[0] == END + 30 and before[1]["price"] == 1.0
    rewind(redis, one._log, "beginning", 24)
    applied(redis)
    assert held(redis, ITEMS[1]) == before
    drain(redis, at(ITEM_LOG))
    told = item_log.read(at(ITEM_LOG))[ITEMS[1]]
    assert [one.fields["price"] for one in told] == [6.0, 1.0, 2.0, 1.0]  # as it stood, then each once


def test_a_deleted_item_is_sold_out_until_somebody_says_something_of_it(redis: Redis) -> None:
    before = held(redis, ITEMS[1])[1]
    say(redis, ITEMS[1], END + 10, deleted=True)
    applied(redis)
    assert held(redis, ITEMS[1])[1] == {**before, "stock": 0}
    assert GONE_S - 60 < redis.ttl(VIEW.key(ITEMS[1])) <= GONE_S
    say(redis, ITEMS[1], END + 5, price=3.0)  # of before it was deleted
    applied(redis)
    assert held(redis, ITEMS[1])[1]["stock"] == 0
    say(redis, ITEMS[1], END + 20, price=4.0)
    applied(redis)
    assert held(redis, ITEMS[1])[1] == {**before, "price": 4.0}
    assert redis.ttl(VIEW.key(ITEMS[1])) == -1


def test_an_item_that_no_export_has_gets_a_row_that_stays(redis: Redis) -> None:
    say(redis, "newborn", END + 10, title="New", price=3.0, description="of oak")
    applied(redis)
    assert held(redis, "newborn")[1] | {"title": "New", "price": 3.0} == held(redis, "newborn")[1]
    materialize(redis, open_store(), instant(END), 100, fresh=False)  # an export of before it was born
    assert held(redis, "newborn")[1]["stock"] is None and redis.ttl(VIEW.key("newborn")) == -1


def test_an_import_keeps_what_was_said_after_it_and_replaces_the_rest(redis: Redis) -> None:
    say(redis, ITEMS[1], END + 10, price=99.5)
    applied(redis)
    file = at(Path("data/raw/items.parquet"))
    table = pq.read_table(file)
    rows = [{**row, "title": "other", "price": 1.0} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema.with_metadata({"said": str(END)})), file)
    materialize(redis, open_store(), instant(END), 100, fresh=False)
    assert (held(redis, ITEMS[1])[1]["title"], held(redis, ITEMS[1])[1]["price"]) == ("other", 99.5)
    assert held(redis, ITEMS[2])[1]["price"] == 1.0


def test_a_reader_learns_of_the_rows_that_changed_and_reads_no_others(redis: Redis, redis_url: str) -> None:
    reader = OnlineFeatures(redis_url, ITEMS)
    reader.load_items()
    before = reader.matrix
    say(redis, ITEMS[1], END + 10, price=99.5, stock=0, category_path="Home/New", brand="Acme")
    say(redis, "newborn", END + 10, title="New")
    applied(redis)
    assert changes.since(redis, changes.Seen(0, 1)).listings is None
    assert reader.refresh() == 0  # no activity
    fresh = reader.matrix
    assert (fresh.price[1], fresh.stock[1], fresh.price[2]) == (99.5, 0, before.price[2])
    assert fresh.brand[1] == 1 and fresh.category[1] not in fresh.category[[0, *range(2, 12)]]
    assert before.price[1] == 6.0 and fresh.activity is before.activity
    assert fresh.price_log[1] == np.log(99.5) and fresh.price_band[1] == 5


def test_a_past_instant_knows_the_price_that_serving_knew_then(redis: Redis, redis_url: str) -> None:
    reader = OnlineFeatures(redis_url, ITEMS)
    reader.load_items()
    dice, told = random.Random(3), []
    for number in range(40):
        ts, item = END + 100 * number, dice.choice(ITEMS)
        said = dice.choice(({"price": dice.choice((1.0, 9.0, None))}, {"stock": dice.choice((0, 5))}, {}))
        say(redis, item, ts, deleted=not said, **said)
        applied(redis)
        reader.refresh()
        told.append((ts, reader.matrix))
    assert drain(redis, at(ITEM_LOG)) > 40 and redis.xlen(SAID) == 0
    features()
    timeline = ItemTimeline.at(ITEMS, END - 1)
    for ts, online in told:
        timeline.advance(ts)
        for name in ("price", "price_log", "price_band", "stock", "available_from", "margin"):
            np.testing.assert_array_equal(getattr(timeline.matrix, name), getattr(online, name), name)


def test_a_shop_that_lost_its_redis_gets_what_was_said_live_back(redis: Redis) -> None:
    say(redis, ITEMS[1], END + 10, price=99.5)
    say(redis, ITEMS[2], END + 20, deleted=True)
    say(redis, "newborn", END + 30, title="New", stock=3)
    applied(redis)
    rows = [held(redis, item) for item in (*ITEMS, "newborn")]
    drain(redis, at(ITEM_LOG))
    redis.flushall()
    materialize(redis, open_store(), instant(END), 100, fresh=True)
    assert [held(redis, item)[1] for item in (*ITEMS, "newborn")] == [row for _, row in rows]
    redis.flushall()
    materialize(redis, open_store(), instant(END + 20), 100, fresh=True, replayed=True)
    assert held(redis, ITEMS[1])[1]["price"] == 99.5 and held(redis, ITEMS[2])[1]["stock"] != 0


def test_an_instant_is_backfilled_from_what_was_said_before_it_alone(redis: Redis) -> None:
    for number in range(4):
        say(redis, ITEMS[1], EVENTS[100 * number]["event_ts"] if number < 3 else END, price=float(number))
    applied(redis)
    drain(redis, at(ITEM_LOG))
    features()
    cut = Cut(EVENTS[150]["event_ts"], [(None, "session 1")], [ITEMS[1]])
    ours = ItemTimeline.at(ITEMS, cut.at - 1).matrix
    with home_before(cut):
        features()
        earlier = ItemTimeline.at(ITEMS, cut.at - 1).matrix
    assert ours.price[1] == earlier.price[1] != 3.0


def test_an_item_of_which_everything_was_said_live_has_no_past_before_it(redis: Redis) -> None:
    whole = {name: None for name in COLUMNS} | {"title": "Mug", "stock": 3}
    for later, price in ((100, 9.0), (200, 12.0)):
        say(redis, "mug", END + later, **(whole | {"price": price}))
        applied(redis)
        drain(redis, at(ITEM_LOG))
    assert [one.ts for one in item_log.read(at(ITEM_LOG))["mug"]] == [END + 100, END + 200]


def test_files_of_the_offline_log_are_put_together(redis: Redis) -> None:
    for number in range(MOST_SMALL + 3):
        say(redis, ITEMS[1], END + number, price=float(number))
        applied(redis)
        drain(redis, at(ITEM_LOG))
    assert len(list(at(ITEM_LOG).glob("*.parquet"))) <= MOST_SMALL
    assert len(item_log.read(at(ITEM_LOG))[ITEMS[1]]) == MOST_SMALL + 4


def test_what_is_no_change_is_a_dead_letter_and_the_rest_goes_on(redis: Redis) -> None:
    entry = {"type": ITEM_CHANGE, "item_id": "a", "event_ts": END, "said": {"stock": -1, "deleted": False}}
    append(redis, 0, orjson.dumps(entry), only="items")
    say(redis, ITEMS[1], END + 10, price=99.5)
    applied(redis)
    ((_, letter),) = redis.xrange(DEAD)
    assert b"stock: -1 is not allowed" in letter[b"reason"] and letter[b"group"] == b"items"
    assert held(redis, ITEMS[1])[1]["price"] == 99.5


def test_consumers_pass_over_changes_that_are_not_theirs_and_catch_up(redis: Redis) -> None:
    for number in range(50):
        say(redis, ITEMS[number % 12], END + number, stock=number)
    consumer().run(until_empty=True)
    assert behind(redis) == 0 and redis.xlen(DEAD) == 0
    assert held(redis, ITEMS[1])[1]["stock"] == 49
    assert len(list(at(ITEM_LOG).glob("*.parquet"))) >= 1  # also without a pause


def test_kill_9_of_the_consumer_in_the_middle_loses_no_change_and_applies_none_twice(redis: Redis) -> None:
    count, items, dice = 6_000, [f"sku {i}" for i in range(300)], random.Random(0)
    expected: dict[str, Words] = {}
    with redis.pipeline(transaction=False) as pipe:
        for number in range(count):
            ts = END + dice.randrange(10_000) * 1_000 + number % 1_000  # also older after newer
            said = {dice.choice(("price", "margin")): dice.random()}
            tell(expected.setdefault(item := items[number % 300], {}), ts, {**said, "deleted": False})
            say(pipe, item, ts, **said)
        pipe.execute()
    for left in (0.8, 0.5, 0.2, 0.0):
        child = os.fork()  # a process of its own, without the seconds of another import
        if child == 0:
            consumer(f"one that has {left} left").run(until_empty=True)
            os._exit(0)
        try:
            wait_until(lambda left=left: behind(redis) <= left * count, 60)
        finally:
            if left or behind(redis):
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        assert bool(status) == bool(left)
    assert {item: held(redis, item)[1] for item in items} == {i: row_of(w) for i, w in expected.items()}
    tables = [pq.read_table(file) for file in at(ITEM_LOG).glob("*.parquet")]
    assert len(set(pa.concat_tables(tables)["entry"].to_pylist())) == count


TOLD = st.lists(
    st.tuples(st.integers(0, 5), st.dictionaries(st.sampled_from(["price", "stock"]), st.integers(0, 3))),
    max_size=8,
)


@settings(max_examples=200)
@given(TOLD, st.randoms())
def test_words_of_different_instants_may_come_in_any_order(
    told: list[tuple[int, dict[str, int]]], dice: random.Random
) -> None:
    instants = {ts: said for ts, said in told}  # one statement an instant: there the order would decide
    in_order, shuffled = sorted(instants.items(), key=lambda one: one[0]), list(instants.items())
    dice.shuffle(shuffled)
    one: Words = {}
    other: Words = {}
    for ts, said in in_order:
        tell(one, ts, said)
    for ts, said in shuffled + shuffled:
        tell(other, ts, said)
    assert one == other
