"""`endcap rails` over a small shop: a real bundle, the catalogue and a shopper's rows in a real Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from redis import Redis
from shops.storefront import act, make_home, release_of, session_row, user_row

from feature_repo.clock import HOUR_US, SECOND_US, micros
from feature_repo.events import EARLIEST
from feature_repo.features.catalogue import ITEM_CATALOGUE, catalogue_rows
from feature_repo.features.stored import SESSION_CONTEXT, USER_HISTORY
from feature_repo.online.rows import OnlineView, write_newer
from feature_repo.params import load
from pipelines.rails.maker import Maker
from pipelines.rails.rails import made
from serving.rails.rail import (
    OTHER_RELEASE,
    SHARED,
    TOO_OLD,
    Rail,
    RailParams,
    Shared,
    decode,
    encode,
    key_of,
    stale,
)
from serving.release import state

BOUGHT, CART = "item-8", "item-3"


def store(redis: Redis, declared: Any, entity: str, ts: int, row: dict[str, Any]) -> None:
    assert write_newer(redis, OnlineView(declared), [(entity, ts, row)]) == [entity]


def show(redis: Redis, user_id: str | None, session_id: str | None, age_h: float = 0.0) -> None:
    """A list was shown, on a German telephone."""
    ts = time.time_ns() // 1000 - round(age_h * HOUR_US)
    shown = {"ts": ts, "user_id": user_id, "session_id": session_id}
    redis.xadd(state.EXPOSURES, {"exposure": orjson.dumps(shown)})
    context = {"device": "mobile", "country": "Germany"}
    redis.xadd("endcap:served", {"meta": orjson.dumps({"judged": {"context": context}})})


@pytest.fixture
def shop(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Redis, Path]]:
    """Redis, and the champion's bundle: u1 bought one thing and has another in the cart; s2 names nobody."""
    home, path = make_home(tmp_path / "home")
    monkeypatch.setenv("ENDCAP_HOME", str(home))
    monkeypatch.setenv("REDIS_URL", redis_url)
    with Redis.from_url(redis_url) as redis:
        for row in catalogue_rows(path / "catalogue.parquet").to_pylist():
            said = {c.name: row[c.name] for c in ITEM_CATALOGUE.columns}
            store(redis, ITEM_CATALOGUE, row["item_id"], micros(EARLIEST), said)
        state.install(redis, release_of(home, path), act())
        now = time.time_ns() // 1000
        store(redis, USER_HISTORY, "u1", now - 1, user_row(("purchase_completed", BOUGHT)))
        store(redis, SESSION_CONTEXT, "s1", now - 1, session_row(("add_to_cart", CART)))
        show(redis, "gone", "s0", age_h=25)
        show(redis, "u1", "s1")
        show(redis, None, "s2")
        yield redis, path


def told(redis: Redis, maker: Maker, params: RailParams) -> str:
    return made(redis, maker, params, lambda: None)


def test_whoever_was_seen_lately_each_cohort_and_each_category_has_a_list(shop: tuple[Redis, Path]) -> None:
    redis, path = shop
    params = load("rails", RailParams)
    maker = Maker(redis, params)
    line = told(redis, maker, params)
    assert line.startswith("rails of 2 shoppers (2 made anew, ")
    catalogue = pq.read_table(path / "catalogue.parquet").to_pylist()
    sold = {row["item_id"]: row["category_path"] for row in catalogue if row["stock"]}
    shopper, visit = (decode(redis.get(key_of(unit))) for unit in ("u:u1", "s:s2"))
    assert redis.get(key_of("u:gone")) is None
    for rail in (shopper, visit):
        assert rail.lists.keys() == {*params.shopper_surfaces}
        assert all(len(set(listed)) == params.length for listed in rail.lists.values())
        assert all({*listed} <= sold.keys() for listed in rail.lists.values())
    assert all({BOUGHT, CART}.isdisjoint(listed) for listed in shopper.lists.values())
    assert shopper.lists["homepage_hero"] != visit.lists["homepage_hero"]
    shared = decode(redis.hget(SHARED, "rails"), Shared)
    assert shared.cohorts.keys() == {*params.shared_surfaces}
    assert all(cohorts.keys() == {"|", "mobile|germany"} for cohorts in shared.cohorts.values())
    assert shared.categories.keys() >= {"Home", *sold.values()}
    for category, listed in shared.categories.items():
        assert listed and all(sold[item].startswith(category) for item in listed)
    for key in (key_of("u:u1"), SHARED):
        assert 0 < redis.ttl(key) <= params.max_age_s


def test_a_second_round_writes_nothing_but_for_who_did_something_since(shop: tuple[Redis, Path]) -> None:
    redis, _ = shop
    params = load("rails", RailParams)
    maker = Maker(redis, params)
    told(redis, maker, params)
    before = {unit: redis.get(key_of(unit)) for unit in ("u:u1", "s:s2")}
    assert told(redis, maker, params).startswith("rails of 2 shoppers (0 made anew), ")
    assert {unit: redis.get(key_of(unit)) for unit in before} == before
    other = next(item for item in decode(before["s:s2"]).lists["cart_upsell"] if item != CART)
    now = time.time_ns() // 1000
    store(redis, SESSION_CONTEXT, "s2", now, session_row(("add_to_cart", other), session="s2"))
    assert told(redis, maker, params).startswith("rails of 2 shoppers (1 made anew, ")
    assert redis.get(key_of("u:u1")) == before["u:u1"]
    assert all(other not in listed for listed in decode(redis.get(key_of("s:s2"))).lists.values())


def test_an_old_rail_and_another_releases_are_refused_and_made_anew(shop: tuple[Redis, Path]) -> None:
    redis, _ = shop
    params = load("rails", RailParams)
    maker = Maker(redis, params)
    told(redis, maker, params)
    held, now, digest = decode(redis.get(key_of("s:s2"))), time.time_ns() // 1000, maker.release.digest

    def since(age_s: float) -> Rail:
        """What `held` would be if it had been made `age_s` ago."""
        return replace(held, at_us=now - round(age_s * SECOND_US))

    assert stale(held, digest, now, params.max_age_s) is None
    assert stale(since(params.max_age_s + 1), digest, now, params.max_age_s) == TOO_OLD
    assert stale(held, "another", now, params.max_age_s) == OTHER_RELEASE
    until_then = params.max_age_s - 2 * params.every_s  # then it ends before the round after the next
    for rail, anew in (
        (since(until_then - 60), 0),
        (since(until_then + 1), 1),
        (replace(held, bundle="another"), 1),
    ):
        redis.set(key_of("s:s2"), encode(rail))
        assert told(redis, maker, params).startswith(f"rails of 2 shoppers ({anew} made anew")
        found = decode(redis.get(key_of("s:s2")))
        assert found.bundle == digest if anew else found == rail
        assert not anew or found.at_us >= now
