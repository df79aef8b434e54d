"""What the shop's catalogue says moves online: prices, stock, items that left; in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis import Redis
from shops.newborn import arrive, leave
from shops.small import ITEMS, open_home, random_events, write_raw

from feature_repo.clock import DAY_S, DAY_US, instant, micros
from feature_repo.errors import UnavailableError
from feature_repo.features.catalogue import ITEM_CATALOGUE, said_at
from feature_repo.features.store import open_store
from feature_repo.features.stored import FOLDS
from feature_repo.offline.build import main as features
from feature_repo.online import changes
from feature_repo.online.lifetimes import GONE_S, LISTED
from feature_repo.online.rows import OnlineView, read_rows
from feature_repo.places import feature_file
from pipelines.stream.materialize import materialize
from serving.live.online_features import OnlineFeatures

pytestmark = pytest.mark.fault
EVENTS = random_events(seed=5, count=300)
END = instant(EVENTS[-1]["event_ts"] + 1)
Edit = Callable[[list[dict[str, Any]]], None]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = open_home(tmp_path, monkeypatch)
    write_raw(folder, EVENTS)
    features()
    return folder


@pytest.fixture
def redis(home: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    monkeypatch.setenv("REDIS_URL", redis_url)
    with Redis.from_url(redis_url) as client:
        materialize(client, open_store(), END, 100, fresh=True)
        yield client


def export(home: Path, edit: Edit, later_us: int = 0) -> None:
    """The catalogue as the next import leaves it, `later_us` after the first."""
    file = home / "data/raw/items.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    edit(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    if later_us:
        events = home / "data/raw/events.parquet"
        table = pq.read_table(events)
        newer = table.slice(0, 1).to_pylist()
        newer[0] |= {"event_id": "later", "event_ts": instant(EVENTS[-1]["event_ts"] + later_us)}
        pq.write_table(pa.concat_tables([table, pa.Table.from_pylist(newer, schema=table.schema)]), events)


def sell_out(rows: list[dict[str, Any]]) -> None:
    rows[1] |= {"stock": 0, "price": 99.5}


def held(redis: Redis, item: str) -> tuple[int, dict[str, Any]]:
    (found,) = read_rows(redis, OnlineView(ITEM_CATALOGUE), [item])
    assert found is not None
    return found


def again(redis: Redis) -> dict[str, int]:
    return materialize(redis, open_store(), END, 100, fresh=False)


def test_a_second_materialize_writes_nothing(redis: Redis) -> None:
    before = {key: redis.dump(key) for key in redis.scan_iter() if not key.startswith(b"endcap:")}
    assert set(again(redis).values()) == {0}
    assert {key: redis.dump(key) for key in before} == before


def test_a_changed_line_moves_and_no_other(redis: Redis, home: Path) -> None:
    seen = changes.seen(redis)
    export(home, sell_out)
    assert again(redis) == {"item_catalogue": 1} | {fold.name: 0 for fold in FOLDS}
    assert held(redis, ITEMS[1])[1]["stock"] == 0 and held(redis, ITEMS[1])[1]["price"] == 99.5
    assert changes.seen(redis).catalogue > seen.catalogue


def test_the_later_export_wins_whatever_the_order_of_writing(redis: Redis, home: Path) -> None:
    first = (home / "data/raw/items.parquet").read_bytes(), (home / "data/raw/events.parquet").read_bytes()
    export(home, sell_out, later_us=DAY_US)
    assert again(redis)["item_catalogue"] == 1
    ts = micros(said_at(home / "data/raw"))
    assert ts == EVENTS[-1]["event_ts"] + DAY_US
    assert {held(redis, item)[0] for item in ITEMS} == {ts}  # what is said again is as new
    for name, content in zip(("items", "events"), first, strict=True):
        (home / f"data/raw/{name}.parquet").write_bytes(content)
    assert again(redis)["item_catalogue"] == 0
    assert held(redis, ITEMS[1])[1]["stock"] == 0


def test_training_sees_the_catalogue_from_the_beginning_on(home: Path) -> None:
    table = pq.read_table(feature_file(ITEM_CATALOGUE.name))
    assert set(table["event_timestamp"].to_pylist()) == {instant(946_684_800_000_000)}
    assert set(table["created_timestamp"].to_pylist()) == {instant(EVENTS[-1]["event_ts"])}


def test_prices_move_beside_consumers_at_work_and_no_shopper_s_clock(redis: Redis, home: Path) -> None:
    clock = changes.applied_ts(redis)
    redis.set("endcap:stream:lease:items", "somebody", px=60_000)
    export(home, sell_out, later_us=DAY_US)
    assert again(redis) == {"item_catalogue": 1}
    assert held(redis, ITEMS[1])[1]["price"] == 99.5
    assert changes.applied_ts(redis) == clock
    assert redis.get("endcap:stream:lease:items") == b"somebody"


def test_an_item_that_left_the_catalogue_is_sold_out_and_goes_in_the_end(redis: Redis, home: Path) -> None:
    view = OnlineView(ITEM_CATALOGUE)
    assert redis.ttl(view.key(ITEMS[2])) == -1
    export(home, lambda rows: rows.pop(2) and None)
    assert again(redis)["item_catalogue"] == 1
    assert held(redis, ITEMS[2])[1]["stock"] == 0 and held(redis, ITEMS[2])[1]["title"]
    assert GONE_S - 60 < redis.ttl(view.key(ITEMS[2])) <= GONE_S
    assert set(again(redis).values()) == {0}
    export(home, lambda rows: rows.append({**rows[0], "item_id": ITEMS[2], "stock": 5}))
    assert again(redis)["item_catalogue"] == 1
    assert redis.ttl(view.key(ITEMS[2])) == -1 and held(redis, ITEMS[2])[1]["stock"] == 5


def listed(redis: Redis, item: str) -> bool:
    """Whether it is in the catalogue, and its row stays."""
    stays = redis.ttl(OnlineView(ITEM_CATALOGUE).key(item)) == -1
    assert bool(redis.sismember(LISTED, item)) == stays
    return stays


def test_an_item_that_was_deleted_live_comes_back_by_a_later_export_alone(redis: Redis, home: Path) -> None:
    leave(redis, [ITEMS[3]], ts=EVENTS[-1]["event_ts"] + DAY_US // 2)
    assert not listed(redis, ITEMS[3])
    export(home, sell_out)  # of before it was deleted, and it names the item
    assert again(redis)["item_catalogue"] == 1
    assert not listed(redis, ITEMS[3]) and held(redis, ITEMS[3])[1]["stock"] == 0
    export(home, lambda rows: None, later_us=DAY_US)
    assert again(redis)["item_catalogue"] == 1
    assert listed(redis, ITEMS[3]) and held(redis, ITEMS[3])[1]["stock"] == 3


def test_an_export_takes_away_what_it_does_not_name_and_nothing_that_came_later(
    redis: Redis, home: Path
) -> None:
    end = EVENTS[-1]["event_ts"]
    arrive(redis, "of yesterday", ts=end - DAY_US)
    arrive(redis, "of tomorrow", ts=end + DAY_US)
    export(home, sell_out)
    assert again(redis)["item_catalogue"] == 2
    assert not listed(redis, "of yesterday") and held(redis, "of yesterday")[1]["stock"] == 0
    assert listed(redis, "of tomorrow") and held(redis, "of tomorrow")[1]["stock"] == 9


def test_every_row_has_a_lifetime_or_is_of_the_catalogue(redis: Redis) -> None:
    for fold in FOLDS:
        keys = list(redis.scan_iter(OnlineView(fold).pattern()))
        listed = [redis.ttl(key) == -1 for key in keys]
        assert keys and all(listed) if fold.key == "item_id" else not any(listed), fold.name
        if fold.key != "item_id":
            assert max(redis.ttl(key) for key in keys) <= 2 * fold.max_age_days * DAY_S


def test_a_new_price_of_the_next_import_reaches_a_reader_by_a_refresh(
    redis: Redis, home: Path, redis_url: str
) -> None:
    reader = OnlineFeatures(redis_url, ITEMS)
    reader.load_items()
    matrix = reader.matrix
    assert matrix.price[1] == 6.0
    export(home, sell_out)
    again(redis)
    reader.refresh()
    fresh = reader.matrix
    assert (fresh.price[1], fresh.stock[1], fresh.price[2]) == (99.5, 0, 7.0)
    assert matrix.price[1] == 6.0 and fresh.activity is matrix.activity


def test_a_reader_keeps_what_it_holds_when_redis_is_emptied(redis: Redis, redis_url: str) -> None:
    reader = OnlineFeatures(redis_url, ITEMS)
    reader.load_items()
    matrix = reader.matrix
    redis.flushall()
    with pytest.raises(UnavailableError, match=r"Redis is empty, or another one.* Next: `endcap restore`"):
        reader.refresh()
    assert reader.matrix is matrix and np.isfinite(matrix.stock).any()
    materialize(redis, open_store(), END, 100, fresh=True)
    assert reader.refresh() == len(ITEMS)
    np.testing.assert_array_equal(reader.matrix.stock, matrix.stock)
