"""Every rung gives a full list in which nothing stands that must not be shown, and says which one it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from shops.storefront import Shop, ask, items, make_home, metric, open_shop, session_row, user_row

from serving import pipeline
from serving.rails.rail import SHARED, Rail, Shared, encode, key_of
from serving.stages import bestsellers
from serving.types import Request

NEVER = -1.0
STEPS = ("live_ms", "vector_ms", "shopper_ms", "shared_ms")
Opened = Callable[[str], AbstractContextManager[Shop]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def opened(home: tuple[Path, Path], redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A shop that gives no rung above the named one, with rails of everybody."""
    monkeypatch.setenv("ENDCAP_HOME", str(home[0]))

    @contextmanager
    def open_at(rung: str) -> Iterator[Shop]:
        barred = STEPS[: STEPS.index(rung)] if rung in STEPS else STEPS
        with open_shop(*home, redis_url, cascade=dict.fromkeys(barred, NEVER)) as shop:
            yield shop
            for key in shop.redis.keys("endcap:rails:*"):
                shop.redis.delete(key)

    return open_at


def store(shop: Shop, own: list[str], age_s: float = 1.0, bundle: str | None = None) -> None:
    """A rail of u1, and rails of cohorts and categories in the reversed order."""
    at_us, current = round((time.time() - age_s) * 1e6), shop.releases.current
    assert current is not None
    digest = bundle or current.champion.bundle.digest
    shop.redis.set(key_of("u:u1"), encode(Rail(at_us, digest, {"homepage_hero": own})))
    many = {"homepage_hero": {"|": own[::-1], "mobile|germany": own[1:]}}
    path = current.champion.features.matrix.categories[1]
    shared = Shared(at_us, digest, many, {path: own[2:]})
    shop.redis.hset(SHARED, mapping={"at_us": at_us, "rails": encode(shared)})
    shop.run(shop.shared.poll)


OWN = [f"item-{i}" for i in (31, 9, 8, 20, 5, 44, 3, 17, 28, 40, 12, 33, 50, 51, 52, 53)]  # 9: out of stock


@pytest.mark.parametrize(
    ("rung", "told"),
    [
        ("live_ms", "live"),
        ("vector_ms", "vector"),
        ("shopper_ms", "shopper_rail"),
        ("shared_ms", "cohort_rail"),
        ("bottom", "fallback"),
    ],
)
def test_each_rung_is_full_and_named_and_logged_as_what_it_is(opened: Opened, rung: str, told: str) -> None:
    with opened(rung) as shop:
        store(shop, OWN)
        answer = ask(shop, exclude=["item-5"])
        assert answer["served_from"] == told
        assert answer["degraded"] == (None if told == "live" else "overloaded")
        assert len(set(items(answer))) == 12 and not {"item-5", "item-9"} & set(items(answer))
        assert [slot["slot"] for slot in answer["items"]] == list(range(12))
        shop.run(shop.exposures.flush)
        _, fields = shop.redis.xrevrange("endcap:exposures", count=1)[0]
        logged = orjson.loads(fields[b"exposure"])
        assert logged["served_from"] == told and logged["items"] == items(answer)
        assert (logged["version"] is None) == (told != "live")  # the canary's guard counts none of them


def test_a_rail_is_served_less_what_was_bought_since_and_filled_up(opened: Opened) -> None:
    with opened("shopper_ms") as shop:
        store(shop, OWN[:6])
        shop.features.users["u1"] = user_row(("purchase_completed", "item-31"))
        shop.features.sessions["s1"] = session_row(("add_to_cart", "item-8"))
        found = items(ask(shop))
        assert found[:3] == ["item-20", "item-5", "item-44"] and len(set(found)) == 12
        assert not {"item-31", "item-8", "item-9"} & set(found)


@pytest.mark.parametrize(("age_s", "bundle"), [(3601.0, None), (1.0, "another release"), (-60.0, None)])
def test_a_rail_that_is_too_old_or_of_another_release_is_not_served(
    opened: Opened, age_s: float, bundle: str | None
) -> None:
    with opened("shopper_ms") as shop:
        store(shop, OWN, age_s, bundle)
        refused = {"of": "shopper", "why": "other_release" if bundle else "too_old"}
        before = metric("endcap_rails_refused_total", **refused)
        answer = ask(shop)
        assert (answer["served_from"], len(answer["items"])) == ("fallback", 12)
        assert metric("endcap_rails_refused_total", **refused) == before + 1


def test_a_cohort_has_its_own_rail_and_a_product_page_that_of_its_category(opened: Opened) -> None:
    with opened("shared_ms") as shop:
        store(shop, OWN)
        told: dict[str, Any] = {"device": "mobile", "country": "Germany"}
        assert items(ask(shop, context=told))[0] == "item-8"  # the first is out of stock
        assert items(ask(shop, context={"device": "tablet"}))[0] == "item-53"
        current = shop.releases.current
        assert current is not None
        matrix = current.champion.features.matrix
        category = matrix.categories[1]
        answer = ask(shop, surface="pdp_fbt", context={"category": f"{category}/below"})
        assert (answer["served_from"], items(answer)[0]) == ("category_rail", "item-8")
        page = next(item for item, row in matrix.row.items() if matrix.category[row] == 1)
        assert ask(shop, surface="pdp_fbt", items=[page])["served_from"] == "category_rail"


@pytest.mark.parametrize("limit", [1, 12, 54, 100])
def test_the_cheapest_list_is_that_of_bestsellers_to_somebody_unknown(opened: Opened, limit: int) -> None:
    with opened("bottom") as shop:
        shop.features.sessions["s1"] = session_row(("add_to_cart", "item-8"))
        cheap = ask(shop, limit=limit)
        assert shop.features.reads == 0
        held = shop.releases.current.champion.features.matrix  # type: ignore[union-attr]
        nobody = pipeline.visitor_of(Request("homepage_hero"), time.time_ns() // 1000, None, None)
        slots = bestsellers.bestsellers(Request("homepage_hero", limit=limit), nobody, held)
        assert items(cheap) == [slot.item_id for slot in slots]
        again = ask(shop, limit=limit)
        assert again | {name: cheap[name] for name in ("request_id", "took_ms")} == cheap
        without = items(ask(shop, limit=limit, exclude=items(cheap)[:1]))  # the list at hand holds it
        assert len(set(without)) == min(limit, 53) and items(cheap)[0] not in without


def test_what_sells_out_leaves_the_cheapest_list_with_the_next_snapshot(opened: Opened) -> None:
    with opened("bottom") as shop:
        first = items(ask(shop))[0]
        held = shop.releases.current.champion.features  # type: ignore[union-attr]
        before = held.matrix
        row = before.row[first]
        catalogue = {name: [getattr(before, name)[row]] for name in ("price", "margin", "available_from")}
        words = {"category_path": [before.categories[before.category[row]]], "brand": [""]}
        held.matrix = before.listed(before.rows_of([first]), catalogue | {"stock": [0]} | words)
        try:
            assert first not in items(ask(shop)) and len(items(ask(shop))) == 12
        finally:
            held.matrix = before
