"""Which items get a vector, when, and how many; any look may be the first, the last or cut short."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis
from shops import tiny_bundle
from shops.newborn import arrive, leave
from shops.storefront import act, make_home, release_of

from feature_repo.online import changes, newborns
from feature_repo.online.newborns import NewbornParams
from pipelines.newborn import newcomers
from pipelines.newborn.item_tower import ItemTower
from pipelines.newborn.newcomers import Newcomers, Texts
from serving.release import bundle, state
from training.dataset import Catalogue
from training.two_tower.encoder import WIDTH
from training.two_tower.text import spec_texts

PARAMS = NewbornParams(most=6, keep_hours=24, poll_s=0.01, silent_s=10.0)


class Lengths:
    """An encoder that counts: of each text its length in every place."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], batch: int) -> np.ndarray:
        self.asked += texts
        return np.array([[len(text)] * WIDTH for text in texts], np.float32) / 1000


class Bench:
    """A shop with one bundle as champion."""

    def __init__(self, redis: Redis, home: Path, path: Path) -> None:
        self.redis, self.home, self.path, self.encoder = redis, home, path, Lengths()
        self.space: str = bundle.verify(path)["space"]

    def worker(self, encoder: str = "e", batch: int = 2) -> Newcomers:
        texts: Any = Texts(self.encoder, encoder)  # type: ignore[arg-type]
        return Newcomers(self.redis, PARAMS, batch, lambda: texts)

    def names(self, space: str | None = None) -> list[str]:
        return newborns.names(self.redis, space or self.space)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("home")
    make_home(folder)
    return folder, tiny_bundle.make(folder, seed=3, encoder="e")


@pytest.fixture
def bench(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with Redis.from_url(redis_url) as redis:
        state.install(redis, release_of(*home), act())
        changes.mark(redis)
        yield Bench(redis, *home)


def test_an_item_that_the_release_knows_or_no_catalogue_lists_gets_none(bench: Bench) -> None:
    worker = bench.worker()
    assert worker.look() == 0
    arrive(bench.redis, "item-3", "new")
    changes.announce(bench.redis, ["made up by an event"])
    assert worker.look() == 1 and bench.names() == ["new"]
    assert worker.look() == 0, "its own announcement is no news"


def test_ids_of_any_characters_reach_no_key(bench: Bench) -> None:
    ids = ["new", "*", "a\\b:c/é %s", "x" * 256, "endcap:rollout"]
    keys = set(bench.redis.keys())
    arrive(bench.redis, *ids)
    assert bench.worker().look() == len(ids) and bench.names() == sorted(ids)
    made = {key for key in set(bench.redis.keys()) - keys if not key.startswith(b"\x02")}  # Feast's own rows
    assert {f"endcap:newborns:{bench.space}".encode()} <= made
    assert all(key.startswith((b"endcap:items:", b"endcap:newborns:")) or b"item_id" in key for key in made)
    assert 0 < bench.redis.ttl(f"endcap:newborns:{bench.space}") <= 24 * 3600


def test_a_new_title_makes_a_new_vector_and_a_new_stock_does_not(bench: Bench) -> None:
    worker = bench.worker()
    arrive(bench.redis, "new", ts=5)
    worker.look()
    before = newborns.read(bench.redis, bench.space, ["new"])["new"]
    arrive(bench.redis, "new", ts=6, stock=1)
    assert worker.look() == 0
    arrive(bench.redis, "new", ts=7, title="Another title")
    assert worker.look() == 1
    after = newborns.read(bench.redis, bench.space, ["new"])["new"]
    assert (before.born, after.born) == (5, 5) and not np.array_equal(before.vector, after.vector)


def test_a_slow_worker_does_not_put_the_vector_of_an_old_price_over_the_newer_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, made = bench.worker(), newcomers.vectors_of

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(newcomers, "vectors_of", made)
        arrive(bench.redis, "new", ts=6, title="Another title")
        assert bench.worker().look() == 1
        return made(*args)

    arrive(bench.redis, "new", ts=5)
    monkeypatch.setattr(newcomers, "vectors_of", overtaken)
    slow.look()
    found = newborns.read(bench.redis, bench.space, ["new"])["new"]
    bench.redis.delete(f"endcap:newborns:{bench.space}")
    bench.worker().look()
    expected = newborns.read(bench.redis, bench.space, ["new"])["new"]
    assert found.inputs == expected.inputs and np.array_equal(found.vector, expected.vector)
    assert slow.look() == 0, "what the other made is right for it too"


def test_what_left_the_catalogue_loses_its_vector(bench: Bench) -> None:
    worker = bench.worker()
    arrive(bench.redis, "new", "other")
    worker.look()
    before = changes.seen(bench.redis)
    leave(bench.redis, ["new"])
    worker.look()
    assert bench.names() == ["other"]
    assert "new" in (changes.since(bench.redis, before).items or [])
    arrive(bench.redis, "gone while nobody looked")
    bench.worker().look()
    leave(bench.redis, ["gone while nobody looked"])
    bench.worker().look()
    assert bench.names() == ["other"]


@pytest.mark.parametrize("done", [0, 1, 2])
def test_another_worker_goes_on_where_one_was_killed(bench: Bench, done: int) -> None:
    class Killed(BaseException):
        pass

    batches = iter(range(done))

    def beat() -> None:
        if next(batches, None) is None:
            raise Killed

    ids = [f"new {i}" for i in range(6)]
    arrive(bench.redis, *ids)
    with pytest.raises(Killed):
        bench.worker().look(beat)
    assert len(bench.names()) == 2 * (done + 1)
    bench.encoder.asked.clear()
    assert bench.worker().look() == 6 - 2 * (done + 1) and bench.names() == ids
    assert len(bench.encoder.asked) == 6 - 2 * (done + 1), "what was made is not made again"


def test_a_release_that_is_promoted_gets_vectors_of_its_own_and_one_that_knows_the_items_none(
    bench: Bench,
) -> None:
    worker = bench.worker()
    arrive(bench.redis, "new", "item-60")
    assert worker.look() == 2
    other = tiny_bundle.make(bench.home, n=61, seed=4, encoder="e")  # fitted with item-60
    installed = state.present(bench.redis)
    state.start_canary(bench.redis, installed, release_of(bench.home, other), 50, "trial", act())
    assert worker.look() == 1
    space = bundle.verify(other)["space"]
    assert (bench.names(), bench.names(space)) == (["item-60", "new"], ["new"])
    mine, theirs = (newborns.read(bench.redis, s, ["new"])["new"].vector for s in (bench.space, space))
    assert not np.array_equal(mine, theirs)


def test_beyond_the_limit_those_that_came_first_stand_and_it_is_told_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    worker = bench.worker()
    for i in range(PARAMS.most + 3):
        arrive(bench.redis, f"new {i}", ts=100 - i)
    with caplog.at_level(logging.WARNING):
        assert worker.look() == PARAMS.most and worker.left_out == 3
        arrive(bench.redis, "one more")
        worker.look()
    assert bench.names() == [f"new {i}" for i in range(3, PARAMS.most + 3)]
    assert [record.message for record in caplog.records] == [
        "newborns.most: 3 new items get no vector, more than 6 came after the fit. Next: fit and promote a "
        "release that knows them, or raise newborns.most"
    ]


def test_without_the_encoder_of_the_fit_an_item_stands_on_what_else_is_known(bench: Bench) -> None:
    arrive(bench.redis, "titled", "untitled", title=None)
    arrive(bench.redis, "titled", title="A title")
    bench.worker(encoder="another").look()
    without = newborns.read(bench.redis, bench.space, ["titled", "untitled"])
    assert bench.encoder.asked == []
    np.testing.assert_array_equal(without["titled"].vector, without["untitled"].vector)
    assert np.isfinite(without["titled"].vector).all() and without["titled"].vector.any()


def test_the_live_vector_is_what_the_release_s_tower_makes_of_the_row(bench: Bench) -> None:
    """Of a known item, written under a new name: the tower as such gives the same."""
    table = tiny_bundle.catalogue(60)
    line = table.slice(7, 1).to_pylist()[0]
    fields = {name: line[name] for name in ("title", "category_path", "brand", "price", "margin")}
    arrive(bench.redis, "twin", **fields)
    bench.worker().look()
    catalogue = Catalogue(table.slice(7, 1))
    expected = ItemTower.load(bench.path).vectors(catalogue, Lengths().encode(spec_texts(catalogue), 1))
    np.testing.assert_array_equal(
        newborns.read(bench.redis, bench.space, ["twin"])["twin"].vector, expected[0]
    )


def test_a_refused_release_is_told_once_and_the_others_go_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    broken = state.Release("f" * 16, "data/bundles/none")
    state.start_canary(bench.redis, state.present(bench.redis), broken, 50, "trial", act())
    worker = bench.worker()
    arrive(bench.redis, "new")
    with caplog.at_level(logging.ERROR):
        assert (worker.look(), worker.look()) == (1, 0)
    assert len(caplog.records) == 1 and "no vectors for new items" in caplog.records[0].message
