"""What follows from an answer: the log of what was shown, the guard's health, the arms and their releases."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from shops import tiny_bundle
from shops.storefront import Shop, act, ask, items, make_home, metric, open_shop, release_of

from feature_repo.assemble.schema import schema_hash
from serving.release import state
from serving.release.router import assign


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def shop(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as opened:
        yield opened


def test_every_answer_is_an_exposure(shop: Shop) -> None:
    answer, anonymous = ask(shop), ask(shop, user_id=None)
    shop.run(shop.exposures.flush)
    entries = [orjson.loads(fields[b"exposure"]) for _, fields in shop.redis.xrange("endcap:exposures")]
    first = entries[0]
    assert [e["request_id"] for e in entries] == [answer["request_id"], anonymous["request_id"]]
    assert first["items"] == items(answer) and first["bundle"] == answer["bundle"]
    assert (first["unit"], first["user_id"], first["session_id"]) == ("u1", "u1", "s1")
    assert (entries[1]["unit"], entries[1]["user_id"]) == ("s1", None)
    assert (first["arm"], first["surface"]) == ("champion", "homepage_hero") and first["ts"] > 10**15


def test_a_sample_of_the_answers_carries_the_values_that_the_ranker_saw(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.storefront, "_draw", lambda: 0.0)
    answer = ask(shop, debug=True)
    shop.run(shop.exposures.flush)
    ((_, fields),) = shop.redis.xrange("endcap:served")
    meta, values = orjson.loads(fields[b"meta"]), np.frombuffer(fields[b"features"], "<f4").reshape(-1, 28)
    assert (meta["request_id"], meta["arm"], meta["ts"]) == (
        *(answer["request_id"], "champion", answer["debug"]["now"]),
    )
    assert meta["schema"] == schema_hash()
    assert len(values) == answer["debug"]["candidates"] > len(items(answer))
    for item in items(answer):
        shown = np.array(answer["debug"]["features"][item], np.float32)
        assert any(np.array_equal(row, shown, equal_nan=True) for row in values)


def test_a_full_exposure_queue_drops_and_counts_and_answers_all_the_same(shop: Shop) -> None:
    shop.exposures._queued = 2
    shop.storefront._draw = lambda: 1.0  # no samples in this queue
    dropped = {"stream": "endcap:exposures", "outcome": "dropped"}
    before = metric("endcap_logged_total", **dropped)
    assert all(len(ask(shop)["items"]) == 12 for _ in range(5))
    assert len(shop.exposures) == 2 and metric("endcap_logged_total", **dropped) == before + 3


def test_health_reaches_the_guard(shop: Shop) -> None:
    current = shop.releases.current
    assert current is not None
    everything = list(shop.features.matrix.ids)
    asked: list[dict[str, Any]] = [{}, {"limit": 100}, {"exclude": everything}, {"exclude": everything[5:]}]
    given = [len(ask(shop, **fields)["items"]) for fields in asked]
    assert given[0] == 12 < given[1] < 100 and given[2] == 0 < given[3] <= 5  # all that may be shown
    few = current.champion.bundle
    few = replace(few, retrieve=replace(few.retrieve, k=5))  # a release that finds less than there is
    shop.releases.current = current._replace(champion=current.champion._replace(bundle=few))
    assert len(items(ask(shop))) == 5
    shop.run(shop.health.publish)
    health = state.read_health(shop.redis, "champion")
    assert (health.requests, health.errors, health.empty) == (5, 0, 1) and health.p99_ms > 0


def test_a_canary_gets_its_share_and_a_rollback_takes_it_back(shop: Shop, home: tuple[Path, Path]) -> None:
    other = tiny_bundle.make(home[0], seed=1)
    installed = state.read(shop.redis)
    assert installed is not None
    canary = state.start_canary(shop.redis, installed, release_of(home[0], other), 50, "trial", act())
    shop.run(shop.releases.poll)
    served = {user: ask(shop, user_id=user) for user in (f"user {i}" for i in range(40))}
    for user, answer in served.items():
        assert answer["arm"] == assign(user, canary.salt, 0.0, 50)
        assert answer["bundle"] == (other if answer["arm"] == "challenger" else home[1]).name
    assert {answer["arm"] for answer in served.values()} == {"champion", "challenger"}
    state.rollback(shop.redis, canary, act())
    shop.run(shop.releases.poll)
    assert {ask(shop, user_id=user)["arm"] for user in served} == {"champion"}


def test_a_refused_bundle_changes_nothing(shop: Shop, home: tuple[Path, Path], tmp_path: Path) -> None:
    broken = home[0] / "data" / "bundles" / ("f" * 16)
    shutil.copytree(home[1], broken, dirs_exist_ok=True)
    (broken / "ranker.txt").write_text("tree")
    state.install(shop.redis, release_of(home[0], broken), act())
    shop.run(shop.releases.poll)
    assert ask(shop)["bundle"] == home[1].name
    good = tiny_bundle.make(home[0], seed=1)
    state.install(shop.redis, release_of(home[0], good), act())
    shop.run(shop.releases.poll)
    assert ask(shop)["bundle"] == good.name
