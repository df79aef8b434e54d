"""The long tail's slot as the storefront gives it: to both arms alike, not to the holdout, on the record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from shops import tiny_bundle
from shops.storefront import Shop, act, ask, items, make_home, open_shop, release_of

from feature_repo.params import load
from serving.release import state
from serving.stages.diversify import TAIL, Diversify

VISITS = [f"visit {number}" for number in range(200)]
SELDOM = {f"item-{number}" for number in range(40, 49)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def shop(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url) as opened:
        show_all_but_the_long_tail(opened)
        yield opened


def show_all_but_the_long_tail(shop: Shop) -> None:
    matrix = shop.features.matrix
    seen = np.array([0.0 if item in SELDOM else 90.0 for item in matrix.ids])
    values = dict.fromkeys(matrix.activity, np.zeros(len(matrix)))
    at = np.full(len(matrix), time.time_ns() // 1000)
    matrix.apply(np.arange(len(matrix)), values | {"at": at, "exposure_7d": seen})


def answers(shop: Shop, **fields: Any) -> dict[str, dict[str, Any]]:
    return {visit: ask(shop, user_id=None, session_id=visit, **fields) for visit in VISITS}


def drawn(told: dict[str, dict[str, Any]]) -> set[str]:
    """Visits whose last slot is the long tail's; no other slot ever is."""
    assert not any(slot["source"] == TAIL for answer in told.values() for slot in answer["items"][:-1])
    return {visit for visit, answer in told.items() if answer["items"][-1]["source"] == TAIL}


def test_a_share_of_the_visits_sees_one_whom_hardly_anybody_was_shown_and_a_repeat_sees_the_same(
    shop: Shop,
) -> None:
    told = answers(shop)
    tail, share = drawn(told), load("diversify", Diversify).tail_share
    assert abs(len(tail) / len(VISITS) - share) < 0.1
    assert {items(told[visit])[-1] for visit in tail} == SELDOM - set(items(told[VISITS[0]])[:-1])
    assert all(len(set(items(answer))) == 12 for answer in told.values())
    again = answers(shop)
    assert {visit: items(answer) for visit, answer in again.items()} == {
        visit: items(answer) for visit, answer in told.items()
    }


def test_the_log_of_what_was_shown_tells_the_chance_of_the_last_slot(shop: Shop) -> None:
    tail, share = drawn(answers(shop)), load("diversify", Diversify).tail_share
    ask(shop, limit=1)
    shop.run(shop.exposures.flush)
    entries = [orjson.loads(fields[b"exposure"]) for _, fields in shop.redis.xrange("endcap:exposures")]
    by_visit = {entry["session_id"]: entry for entry in entries}
    for visit in VISITS:
        entry = by_visit[visit]
        assert entry["tail"] == (visit in tail)
        if entry["tail"]:
            assert entry["propensity"] == pytest.approx(share / len(SELDOM - set(entry["items"][:-1])))
        else:
            assert entry["propensity"] >= 1 - share
    assert (entries[-1]["tail"], entries[-1]["propensity"]) == (False, 1.0)  # a list of one


def test_both_arms_of_a_canary_give_the_slot_to_the_same_visits(shop: Shop, home: tuple[Path, Path]) -> None:
    champion = drawn(answers(shop))
    other, installed = tiny_bundle.make(home[0], seed=1), state.read(shop.redis)
    assert installed is not None
    state.start_canary(shop.redis, installed, release_of(home[0], other), 100, "trial", act())
    shop.run(shop.releases.poll)
    told = answers(shop)
    assert {answer["arm"] for answer in told.values()} == {"challenger"}
    assert drawn(told) == champion != set()


def test_the_holdout_gets_none(
    home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url, holdout=1.0) as shop:
        show_all_but_the_long_tail(shop)
        assert not drawn(answers(shop))
        shop.run(shop.exposures.flush)
        entries = [orjson.loads(fields[b"exposure"]) for _, fields in shop.redis.xrange("endcap:exposures")]
    assert {(entry["tail"], entry["propensity"]) for entry in entries} == {(False, 1.0)}
