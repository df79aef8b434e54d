"""What is sold out or deleted is in no list, whoever made it: every rung of the ladder, and /v1/rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shops.storefront import Shop, ask, items, make_home, metric, open_shop

from feature_repo.assemble.matrix import ItemMatrix, Rows
from serving import pipeline

SOLD_OUT = [f"item-{number}" for number in range(40, 58)]  # among them all that the rail has first
LISTED = ["item-57", "item-3", "item-41", "item-4"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(params=[0.0, 1.0], ids=["champion", "holdout"])
def shop(
    request: pytest.FixtureRequest,
    home: tuple[Path, Path],
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Shop]:
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))
    with open_shop(*home, redis_url, holdout=request.param) as opened:
        yield opened


def without_stock(matrix: ItemMatrix, rows: Rows) -> ItemMatrix:
    unknown = ("price", "margin", "category_path", "brand", "available_from")
    columns: dict[str, Any] = dict.fromkeys(unknown, [None] * len(rows)) | {"stock": [0] * len(rows)}
    return matrix.listed(rows, columns)


def sell_out(shop: Shop) -> None:
    matrix = shop.features.matrix
    shop.features.matrix = without_stock(matrix, matrix.rows_of(SOLD_OUT))


def broken(*_: object) -> None:
    raise RuntimeError("a defect")


RUNGS: dict[str, Callable[[Shop, pytest.MonkeyPatch], object]] = {
    "as it should be": lambda shop, patch: None,
    "overloaded": lambda shop, patch: setattr(shop.storefront, "_in_flight", 1_000),
    "no pipeline": lambda shop, patch: patch.setattr(pipeline, "rank", broken),
    "no bestsellers either": lambda shop, patch: patch.setattr(pipeline, "eligibility", broken),
}


@pytest.mark.parametrize("rung", RUNGS)
def test_no_rung_shows_what_is_sold_out_and_each_did_before(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, rung: str
) -> None:
    RUNGS[rung](shop, monkeypatch)
    before = ask(shop, limit=40)
    assert set(SOLD_OUT) & set(items(before))
    sell_out(shop)
    after = ask(shop, limit=40)
    assert not set(SOLD_OUT) & set(items(after)) and len(after["items"]) >= 30
    assert after["served_from"] == before["served_from"]


@pytest.mark.parametrize("rung", ["as it should be", "no pipeline"])
def test_rank_leaves_out_what_is_sold_out(shop: Shop, monkeypatch: pytest.MonkeyPatch, rung: str) -> None:
    RUNGS[rung](shop, monkeypatch)
    assert set(items(ask(shop, "/v1/rank", items=LISTED))) == {*LISTED}
    sell_out(shop)
    shorts = metric("endcap_empty_slots_total", surface="homepage_hero")
    assert set(items(ask(shop, "/v1/rank", items=LISTED))) == {"item-3", "item-4"}
    assert items(ask(shop, "/v1/rank", items=SOLD_OUT[:2])) == []
    assert metric("endcap_empty_slots_total", surface="homepage_hero") == shorts


def test_a_list_of_nothing_on_sale_is_empty_and_no_error(shop: Shop) -> None:
    matrix = shop.features.matrix
    shop.features.matrix = without_stock(matrix, np.arange(len(matrix)))
    assert items(ask(shop)) == []
