"""Which rules hold for a request, which products a selector means, and masks that follow the catalogue."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from shops.rules import HERO, IDS, ITEMS, NOW, N, document, steering
from shops.tiny_bundle import catalogue, matrix

from feature_repo.assemble.matrix import ItemMatrix
from serving.rules.compiled import Compiled, selected
from serving.types import Context, Request


@pytest.mark.parametrize(
    ("when", "context", "user", "holds"),
    [
        ({"surface": ["pdp_fbt"]}, {}, None, False),
        ({"surface": ["pdp_fbt", "homepage_hero"]}, {}, None, True),
        ({"device": ["mobile"]}, {"device": "Mobile"}, None, True),
        ({"device": ["mobile"]}, {}, None, False),
        ({"country": ["DE", "AT"]}, {"country": "at"}, None, True),
        ({"channel": ["email"]}, {"channel": "direct"}, None, False),
        ({"known": True}, {}, "u", True),
        ({"known": False}, {}, "u", False),
        ({"page_category": "Home/Bags"}, {"category": "home/bags/Kind 3"}, None, True),
        ({"page_category": "Home/Bags"}, {"category": "Home/Bagsy"}, None, False),
        ({"from": "2023-11-14T23:13:20+01:00"}, {}, None, True),
        ({"from": "2023-11-14T22:13:21Z"}, {}, None, False),
        ({"until": "2023-11-14T22:13:20Z"}, {}, None, False),
        (
            {"until": "2023-11-14T22:13:21Z", "known": False, "device": ["mobile"]},
            {"device": "mobile"},
            None,
            True,
        ),
    ],
)
def test_a_rule_holds_when_all_that_it_says_is_so(
    when: dict[str, Any], context: dict[str, str], user: str | None, holds: bool
) -> None:
    request = Request("homepage_hero", user_id=user, context=Context(**context))
    block = {"block": {"where": {"brand": "brand 0"}}, "when": when}
    assert steering(block, request=request).rules == (("r0",) if holds else ())


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ({"item_id": ["item-3", "item-5"]}, {3, 5}),
        ({"brand": "brand 3", "price": {"to": 20}}, {3, 10}),
        ({"category": "Home/Apparel/Kind 0"}, {0, 15, 30, 45}),
        ({"category": ["Home/Bags/Kind 3", "Home/Apparel/Kind 0"], "price": {"from": 30}}, {30, 33, 45, 48}),
        ({"stock": {"to": 0}}, set(range(9, N, 10))),
        ({"margin": {"from": 0.5}, "price": {"from": 60}}, {59}),
        ({"tag": ["sale"]}, {1, 2}),
        ({"tag": "sale", "brand": "brand 2"}, {2}),
        ({"age_days": {"to": 10}}, {4}),
        ({"category": "Home/App"}, set()),
    ],
)
def test_a_selector_means_these_products(where: dict[str, Any], wanted: set[int]) -> None:
    table = catalogue(N)
    columns: dict[str, Any] = {
        name: table[name].to_pylist() for name in ("price", "margin", "stock", "category_path", "brand")
    }
    opening = [None] * N
    opening[4], opening[5] = NOW - 9 * 86_400_000_000, NOW - 90 * 86_400_000_000  # type: ignore[call-overload]
    tags = [["sale", "new"] if i in (1, 2) else None for i in range(N)]
    items = ItemMatrix(IDS, columns | {"available_from": opening, "tags": tags})
    rule = document({"block": {"where": where}}).rules[0]
    assert rule.do.block
    assert set(np.flatnonzero(selected(rule.do.block.where, items, NOW)).tolist()) == wanted


def test_an_unknown_value_is_below_no_floor_and_in_no_range() -> None:
    columns: dict[str, Any] = {"price": [1.0, None], "margin": [0.1, None], "stock": [2, None]}
    columns |= {"category_path": ["A", None], "brand": ["b", None], "available_from": [None, None]}
    items = ItemMatrix(["known", "unknown"], columns)
    asked = steering({"floor": {"margin": 0.2, "stock": 3}}, items=items)
    assert asked.allowed is not None and asked.allowed.tolist() == [False, True]
    cheap = document({"block": {"where": {"price": {"to": 5}}}}).rules[0].do.block
    assert cheap and selected(cheap.where, items, NOW).tolist() == [True, False]


def test_masks_follow_prices_that_move_and_rows_that_are_appended() -> None:
    compiled = Compiled(document({"block": {"where": {"brand": "brand 0"}}}), ITEMS, NOW)
    touched = ITEMS.updated(np.array([0]), {name: [1] for name in ITEMS.activity})
    assert compiled.fits(touched, NOW)  # a view is no change of the catalogue
    longer = matrix(catalogue(N + 3))
    assert not compiled.fits(longer, NOW) and not compiled.of(longer)
    found = Compiled(document({"block": {"where": {"brand": "brand 0"}}}), longer, NOW).steering(HERO, NOW)
    assert found.allowed is not None and len(found.allowed) == N + 3
