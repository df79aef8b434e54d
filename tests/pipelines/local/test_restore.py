"""A Redis that comes back empty: seen by status and consumers, told by `up`, mended by one command."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis import Redis
from shops import tiny_bundle
from shops.service import free_port
from shops.small import random_events, write_raw
from shops.storefront import act, make_home, release_of

from feature_repo.clock import instant
from feature_repo.features.store import open_store
from feature_repo.offline.build import main as features
from feature_repo.online import changes
from feature_repo.online.connection import connect
from feature_repo.params import shop
from feature_repo.persons.pseudonyms import Persons
from feature_repo.ports import redis_url, service_url
from pipelines import cli
from pipelines.local import process, stack
from pipelines.local.restore import main as restore
from pipelines.release.aliases import ReleaseError
from pipelines.release.registry import Registry, store
from pipelines.stream.materialize import end_of_data, materialize
from serving.release import state

pytestmark = pytest.mark.fault
EVENTS = random_events(seed=5, count=300)
PARTS = ("redis", "stream", "service")
PATIENCE_S = 90


@dataclass
class Shop:
    """A running shop with a champion and one release before it."""

    home: Path
    champion: state.Release
    previous: state.Release


@pytest.fixture(scope="module")
def shop_up(tmp_path_factory: pytest.TempPathFactory, empty_registry: Path) -> Iterator[Shop]:
    with pytest.MonkeyPatch.context() as patch:
        home, bundle = make_home(tmp_path_factory.mktemp("restore"))
        patch.setenv("ENDCAP_HOME", str(home))
        patch.delenv("REDIS_URL", raising=False)
        params = home / "params.yaml"  # what comes after the data comes months before today
        params.write_text(re.sub(r"late_days: \d+", "late_days: 3650", params.read_text()))
        for name in ("REDIS", "SERVICE", "CONSOLE"):
            patch.setenv(f"ENDCAP_{name}_PORT", str(free_port()))
        write_raw(home, EVENTS)
        features()
        store().parent.mkdir(parents=True)
        shutil.copy(empty_registry, store())
        older = release_of(home, tiny_bundle.make(home, seed=1))
        found = Shop(home, release_of(home, bundle), older)
        try:
            stack.bring_up(("redis",))
            with connect() as redis:
                materialize(redis, open_store(), end_of_data(home / "data/raw"), 100, fresh=True)
                state.install(redis, found.previous, act())
                Registry().repeat(state.install(redis, found.champion, act()))
            stack.bring_up(PARTS)
            yield found
        finally:
            stack.take_down()


NEW = Persons(os.environ["ENDCAP_PERSON_KEY"].encode()).of("s new").encode()  # as the stores know the visit


def until(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def post(session: str, number: int) -> None:
    """An event that is of after the data, as the storefront sends it."""
    at = instant(EVENTS[-1]["event_ts"] + number * 1_000_000).isoformat()
    event = {"type": "add_to_cart", "session_id": session, "item_id": "item 1", "event_ts": at}
    body = {"events": [{**event, "event_id": f"{session}-{number}"}]}
    answer = httpx.post(f"{service_url()}/v1/events?wait=1", json=body, timeout=30)
    assert answer.status_code == 202 and answer.json()["applied"], answer.text


def values(redis: Redis) -> dict[bytes, Any]:
    """Every row of a shopper, a visit or an item."""
    keys = [key for key in redis.scan_iter() if not key.startswith(b"endcap:")]
    return {key: redis.hgetall(key) for key in keys}


def carts(redis: Redis) -> int:
    return sum(NEW in key for key in values(redis))


def test_an_emptied_redis_is_told_and_one_command_brings_the_shop_back(
    shop_up: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    with connect() as redis:
        before = values(redis)
        redis.delete(*redis.keys())
        assert stack.status() == 1
        told = capsys.readouterr().out
        assert (
            "features: missing; Redis is new, was emptied, or is another one. Next: `endcap restore`" in told
        )
        assert "release pointer: missing" in told
        log = process.log_file(shop().run_dir(), "stream")
        until(lambda: f"{changes.EMPTY}: new rows have no past. Next: {changes.MEND}" in log.read_text())
        post("s new", 5)  # the door needs no release, and what it took is applied again after the restore
        restore()
        told = capsys.readouterr().out
        assert f"champion: {shop_up.champion.digest}" in told and "rows: " in told
        held = state.present(redis)
        assert held.champion == shop_up.champion and held.previous == shop_up.previous
        until(lambda: carts(redis) == 1)
        after = values(redis)
        item = next(
            key for key in before if b"item 1" in key and b"item 10" not in key and b"item 11" not in key
        )
        assert {k: v for k, v in after.items() if NEW not in k and k != item} == {
            k: v for k, v in before.items() if k != item
        }
    until(lambda: httpx.get(f"{service_url()}/readyz", timeout=5).status_code == 200)
    stack.status()
    told = capsys.readouterr().out
    assert "missing" not in told and "items      fresh" in told and "release    fresh" in told
    restore()
    assert "nothing is missing" in capsys.readouterr().out


def test_up_over_an_empty_redis_comes_up_and_says_what_to_do(
    shop_up: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.take_down(("service",))
    with connect() as redis:
        redis.delete(*redis.keys())
        began = time.monotonic()
        assert stack.up(["service"]) == 1
        assert time.monotonic() - began < 80  # stack.ready_timeout_s is 90
        told = capsys.readouterr().out
        assert (
            "service  not ready" in told and "Next: `endcap restore`; in a new shop `endcap promote`" in told
        )
        readyz = httpx.get(f"{service_url()}/readyz", timeout=5)
        assert readyz.status_code == 503 and "`endcap restore`" in readyz.text
        post("s new", 7)
        restore()
        until(lambda: httpx.get(f"{service_url()}/readyz", timeout=5).status_code == 200)


def test_a_damaged_champion_is_named_and_the_one_before_it_serves(
    shop_up: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = shop_up.home / shop_up.champion.path / "ranker.txt"
    whole = trees.read_bytes()
    with connect() as redis:
        redis.delete(state.ROLLOUT)
        trees.write_bytes(whole[:-10])
        try:
            restore()
            assert state.present(redis).champion == shop_up.previous
            assert "champion: " in (told := capsys.readouterr().out) and "ranker.txt" in told
        finally:
            trees.write_bytes(whole)


def test_without_any_release_the_next_step_is_named(shop_up: Shop, empty_registry: Path) -> None:
    kept = store().read_bytes()
    with connect() as redis:
        redis.delete(state.ROLLOUT)
        shutil.copy(empty_registry, store())
        try:
            with pytest.raises(ReleaseError, match=r"MLflow names no release that is left; .*promote`"):
                restore()
        finally:
            store().write_bytes(kept)
            state.install(redis, shop_up.champion, act())


def test_a_sold_out_product_leaves_the_answers_of_the_running_shop_after_an_import(shop_up: Shop) -> None:
    """`endcap ingest`, `endcap materialize`, beside service and consumers at work."""
    export, raw = shop_up.home / "data/export", shop_up.home / "data/raw"
    export.mkdir()
    for name in ("events", "impressions"):
        shutil.copy(raw / f"{name}.parquet", export)
    catalogue = pq.read_table(shop_up.home / shop_up.champion.path / "catalogue.parquet")

    def import_with(sold_out: str | None) -> None:
        rows = catalogue.to_pylist()
        rows = [row | {"stock": 0, "price": 1.25} if row["item_id"] == sold_out else row for row in rows]
        pq.write_table(pa.Table.from_pylist(rows, schema=catalogue.schema), export / "items.parquet")
        assert cli.run(["ingest"]) == 0
        assert cli.run(["materialize"]) == 0

    def shown() -> list[str]:  # all that may be shown: where it stands in the list may change
        body = {"surface": "homepage_hero", "session_id": "s of a sale", "limit": 100}
        answer = httpx.post(f"{service_url()}/v1/recommend", json=body, timeout=10)
        return [item["item_id"] for item in answer.json().get("items", [])]

    import_with(None)
    until(lambda: stack.consumers_read(redis_url(), 4))
    first = until(shown)[0]
    import_with(first)
    until(lambda: (found := shown()) and first not in found)
    until(lambda: stack.consumers_read(redis_url(), 4))
    import_with(None)
    until(lambda: first in shown())
