"""Versions of the rules in Redis: compare-and-set, audit, reverts, a bound; a worker that follows them."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import orjson
import pytest
from redis import Redis
from shops.tiny_bundle import catalogue, matrix

from feature_repo.assemble.matrix import ItemMatrix, Newborns
from feature_repo.errors import UnavailableError
from feature_repo.events import ITEM_NAMES
from serving.release.state import Act, read_audit
from serving.rules import published
from serving.rules.compiled import Compiled
from serving.rules.document import Document, parse
from serving.rules.published import NoSuchVersion, Published, RulesConflict
from serving.rules.rulebook import Rulebook
from serving.stages.steering import UNSTEERED
from serving.types import Request

HERO = Request("homepage_hero")


def blocking(brand: str, **fields: Any) -> Document:
    rule = {"id": f"no-{brand}", "do": {"block": {"where": {"brand": f"brand {brand}"}}}}
    return parse(orjson.dumps({"rules": [rule], **fields}))


def act(why: str = "test") -> Act:
    return Act("tester", why, time.time_ns() // 1000)


@pytest.fixture
def redis(redis_url: str) -> Redis:
    return Redis.from_url(redis_url)


def publish(redis: Redis, brand: str, **fields: Any) -> Published:
    return published.publish(redis, blocking(brand, **fields), act(f"brand {brand}"), published.read(redis))


def brands(found: Published) -> list[str]:
    return [rule.id for rule in parse(found.document).rules]


def test_before_the_first_there_are_no_rules_and_each_change_is_a_version_with_an_audit_entry(
    redis: Redis,
) -> None:
    assert published.read(redis) == Published()
    for version, brand in enumerate("123", 1):
        assert publish(redis, brand).version == version
        assert published.read(redis).version == version
    entry = read_audit(redis)[0]
    assert (entry["who"], entry["what"], entry["why"]) == ("tester", "publish_rules", "brand 3")
    assert entry["numbers"]["rules_version"] == 3
    assert len(read_audit(redis)) == 3


def test_of_two_who_change_at_once_one_is_told(redis: Redis) -> None:
    seen = published.read(redis)
    published.publish(redis, blocking("1"), act(), seen)
    with pytest.raises(RulesConflict, match="changed by somebody else"):
        published.publish(redis, blocking("2"), act(), seen)
    assert brands(published.read(redis)) == ["no-1"]
    assert len(read_audit(redis)) == 1


def test_a_file_made_from_an_older_version_is_refused(redis: Redis) -> None:
    publish(redis, "1")
    publish(redis, "2", version=1)
    with pytest.raises(RulesConflict, match="made from version 1, version 2 holds"):
        publish(redis, "3", version=1)


def test_a_revert_is_a_new_version_and_goes_further_back_each_time(redis: Redis) -> None:
    for brand in "123":
        publish(redis, brand)
    steps = []
    for _ in range(4):
        found = published.revert(redis, act("back"), published.read(redis))
        steps.append((found.version, brands(found)))
    assert steps == [(4, ["no-2"]), (5, ["no-1"]), (6, []), (7, [])]
    named = published.revert(redis, act("to 3"), published.read(redis), to=3)
    assert brands(named) == ["no-3"]
    assert read_audit(redis)[0]["numbers"]["to"] == 3
    with pytest.raises(NoSuchVersion, match="99 is not kept; allowed: 0, 1, 2, 3"):
        published.revert(redis, act(), published.read(redis), to=99)


def test_nothing_to_revert_is_said(redis: Redis) -> None:
    with pytest.raises(NoSuchVersion, match="no rules were ever published"):
        published.revert(redis, act(), published.read(redis))


def test_only_the_newest_versions_are_kept(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "KEPT", 3)
    for brand in "12345":
        publish(redis, brand)
    published.set_shadow(redis, blocking("6"), act(), published.read(redis))  # no version, so none goes
    assert sorted(redis.hkeys(published.VERSIONS)) == [b"3", b"4", b"5"]  # type: ignore[type-var]


def test_a_shadow_changes_no_version_and_ends_when_it_is_published(redis: Redis) -> None:
    publish(redis, "1")
    found = published.set_shadow(redis, blocking("2"), act(), published.read(redis))
    assert (found.version, brands(found), bool(found.shadow_name)) == (1, ["no-1"], True)
    assert publish(redis, "3").shadow == found.shadow
    assert publish(redis, "2").shadow is None


COLUMNS = ("price", "margin", "stock", "category_path", "brand")


def follower(redis: Redis, *items: ItemMatrix) -> Rulebook:
    return Rulebook(redis, lambda: items)


def test_a_worker_follows_and_every_answer_is_of_one_version(redis: Redis) -> None:
    items = matrix(catalogue(60))
    book = follower(redis, items)
    asyncio.run(book.poll())
    assert book.steering(HERO, items, 0) is UNSTEERED
    publish(redis, "1")
    assert book.steering(HERO, items, 0) is UNSTEERED  # until it looks
    asyncio.run(book.poll())
    first = book.steering(HERO, items, 0)
    publish(redis, "2")
    asyncio.run(book.poll())
    second = book.steering(HERO, items, 0)
    assert (first.version, first.rules, second.version, second.rules) == (1, ("no-1",), 2, ("no-2",))
    assert book.tried(HERO, items, 0) is None
    published.set_shadow(redis, blocking("3"), act(), published.read(redis))
    asyncio.run(book.poll())
    tried = book.tried(HERO, items, 0)
    assert tried and tried.rules == ("no-3",)
    assert book.steering(HERO, items, 0).rules == ("no-2",)


def test_a_catalogue_that_nobody_compiled_for_yet_has_the_rules_all_the_same(redis: Redis) -> None:
    items, longer = matrix(catalogue(60)), matrix(catalogue(63))
    book = follower(redis, items)
    publish(redis, "1")
    asyncio.run(book.poll())
    found = book.steering(HERO, longer, 0).allowed
    assert found is not None and len(found) == 63
    said: dict[str, Any] = {name: catalogue(60)[name].to_pylist() for name in COLUMNS}
    moved = items.listed(np.arange(60), said | {"available_from": [None] * 60})
    assert book.steering(HERO, moved, 0).rules == ("no-1",)  # masks of a moment ago, until the next look


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Who compiled, time after time."""
    found: list[threading.Thread] = []
    compile_ = Compiled.__init__

    def noted(self: Compiled, *args: Any) -> None:
        found.append(threading.current_thread())
        compile_(self, *args)

    monkeypatch.setattr(Compiled, "__init__", noted)
    return found


def test_rules_are_compiled_for_a_newborn_before_a_request_meets_it(
    redis: Redis, compiling: list[threading.Thread]
) -> None:
    items = [matrix(catalogue(60))]
    book = Rulebook(redis, lambda: items)
    publish(redis, "1")
    asyncio.run(book.poll())
    said = {name: ["brand 1"] if name == "brand" else [None] for name in ITEM_NAMES}
    vectors = Newborns.of([5], [np.ones(4, np.float32)])
    grown = items[0].with_newborns(["newborn"], vectors, said)

    def arrive() -> None:
        with book.ready(grown):
            assert book.steering(HERO, items[0], 0).rules == ("no-1",)  # for who asked before
            items[0] = grown

    thread = threading.Thread(target=arrive)
    before, seen = len(compiling), items[0]
    thread.start()
    thread.join()
    allowed = book.steering(HERO, grown, 0).allowed
    assert allowed is not None and len(allowed) == 61 and not allowed[60]
    assert book.steering(HERO, seen, 0).rules == ("no-1",)
    assert compiling[before:] == [thread]
    asyncio.run(book.poll())  # a look between two arrivals changes nothing
    assert book.steering(HERO, grown, 0).allowed is allowed and len(compiling) == before + 1
    assert len(book._held.book.compiled) == 1, "nothing is kept of items that are no more"


def test_where_redis_has_lost_the_rules_those_that_were_loaded_hold_on(redis: Redis) -> None:
    items = matrix(catalogue(60))
    book = follower(redis, items)
    publish(redis, "1")
    asyncio.run(book.poll())
    redis.flushall()
    with pytest.raises(UnavailableError, match="Redis is empty"):
        asyncio.run(book.poll())
    assert book.steering(HERO, items, 0).rules == ("no-1",)
    publish(redis, "2")  # version 1 again, and another document
    asyncio.run(book.poll())
    assert book.steering(HERO, items, 0).rules == ("no-2",)
