"""Lists that start from products: complements are no substitutes, filters hold, no slot is empty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from shops.tiny_bundle import PARAMS, catalogue, make, matrix

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.params import parse
from pipelines.surfaces.slices import variants
from serving.pipeline import Bundle, Served, recommend, visitor_of
from serving.release import bundle
from serving.surfaces.craft import Surfaces
from serving.types import Request
from training.collaborative.covisit import CovisitParams, fit_covisit
from training.collaborative.together import CartedParams, TogetherParams, fit_carted, fit_together
from training.dataset import Contacts

NOW = 1_700_000_000_000_000
N = 60  # four items of each of fifteen kinds; item i and item i + 15 are of one kind
LAMPS = (0, 15, 30, 45)
BULB = 4


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    home: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_HOME", str(home))
        yield bundle.load(make(home, N))


def lamp_shop(release: Bundle) -> Bundle:
    """Everybody looks at every lamp; who takes one takes a bulb with it."""
    visits = [[(lamp, 1) for lamp in LAMPS]] * 80
    visits += [[(lamp, 1), (lamp, 2), (BULB, 1), (BULB, 2)] for lamp in LAMPS] * 6
    rows = [
        (item, kind, at, number) for number, one in enumerate(visits) for at, (item, kind) in enumerate(one)
    ]
    item, kind, ts, session = (np.array(column) for column in zip(*rows, strict=True))
    contacts = Contacts(item, kind, ts, session, session, np.zeros((len(item), 3), np.int64))
    models = replace(
        release.models,
        covisit=fit_covisit(contacts, N, CovisitParams(10, 0.85, 0.6, (1.0, 1.3, 1.5), 0.3)),
        together=fit_together(contacts, N, TogetherParams(2.0, 0.0, 50)),
        carted=fit_carted(contacts, N, CartedParams(2.0, 0.0, 50, 0.6)),
    )
    return replace(release, models=models)


def listed(release: Bundle, request: Request, items: ItemMatrix) -> Served:
    return recommend(request, release, visitor_of(request, NOW, None, None), items)


def ids(served: Served) -> list[str]:
    return [slot.item_id for slot in served.slots]


def test_bought_together_of_a_lamp_is_its_bulb_and_never_another_lamp(release: Bundle) -> None:
    shop, items = lamp_shop(release), matrix(catalogue(N))
    request = Request("pdp_fbt", items=("item-0",))
    own = replace(shop, surfaces=replace(shop.surfaces, pdp_fbt=replace(shop.surfaces.pdp_fbt, order="own")))
    for bundled in (shop, own):
        shown = ids(listed(bundled, request, items))
        assert len(shown) == 12 and f"item-{BULB}" in shown
        assert not {f"item-{lamp}" for lamp in LAMPS} & set(shown)
    assert ids(listed(own, request, items))[0] == f"item-{BULB}"


def test_co_views_alone_would_have_shown_the_other_lamps_for_a_lamp(release: Bundle) -> None:
    """What the test above is worth: the same shop without filters, by co-views."""
    shop = lamp_shop(release)
    free = dict(variants(shop.surfaces.pdp_fbt))["baseline unfiltered"]
    blind = replace(shop, surfaces=replace(shop.surfaces, pdp_fbt=free))
    shown = ids(listed(blind, Request("pdp_fbt", items=("item-0",)), matrix(catalogue(N))))
    assert {"item-15", "item-30", "item-45"} <= set(shown[:4])


def test_similar_items_of_a_lamp_are_the_lamps(release: Bundle) -> None:
    request = Request("similar_items", items=("item-0",), limit=3)
    assert set(ids(listed(release, request, matrix(catalogue(N))))) == {"item-15", "item-30", "item-45"}


def test_a_cart_is_completed_by_nothing_dearer_than_its_dearest_item(release: Bundle) -> None:
    items = matrix(catalogue(N))  # item i costs 5 + i
    served = listed(release, Request("cart_upsell", cart=("item-3", "item-40"), limit=12), items)
    assert max(items.price[items.row[item]] for item in ids(served)) <= 45
    assert listed(release, Request("cart_upsell", cart=("item-3",), limit=12), items).slots  # it gives way


def test_a_surface_asked_without_a_product_answers_like_the_homepage(release: Bundle) -> None:
    items = matrix(catalogue(N))
    homepage = ids(listed(release, Request("homepage_hero"), items))
    assert homepage and ids(listed(release, Request("pdp_fbt"), items)) == homepage
    assert ids(listed(release, Request("pdp_fbt", items=("no such item",)), items)) == homepage


def test_a_surface_asks_its_own_sources_alone(release: Bundle) -> None:
    served = listed(release, Request("pdp_fbt", items=("item-0",)), matrix(catalogue(N)))
    assert set(served.candidates.source) <= {*release.surfaces.pdp_fbt.quotas, "bestsellers"}
    assert len(served.candidates.rows) <= release.retrieve.k


KIND = st.one_of(st.none(), st.integers(0, 13).map("Home/Kind {}".format))
SHOPS = st.lists(
    st.tuples(KIND, st.sampled_from((None, 1.0, 5.0, 20.0)), st.sampled_from((0, 5, 5, 5))),
    min_size=N,
    max_size=N,
)
PICKED = st.lists(st.integers(0, N - 1), max_size=5, unique=True)
CRAFTED = ("pdp_fbt", "cart_upsell", "similar_items", "email_post_purchase")


def stocked(rows: list[tuple[str | None, float | None, int]]) -> ItemMatrix:
    kinds, prices, stocks = zip(*rows, strict=True)
    unknown: list[None] = [None] * N
    columns = {"category_path": kinds, "price": prices, "stock": stocks}
    nothing = dict.fromkeys(("brand", "margin", "available_from"), unknown)
    return matrix(catalogue(N)).listed(np.arange(N), columns | nothing)


@settings(max_examples=60, deadline=None)
@given(shop=SHOPS, page=PICKED, cart=PICKED, surface=st.sampled_from(CRAFTED), limit=st.integers(1, 40))
def test_any_list_is_full_and_holds_nothing_twice_no_anchor_and_nothing_of_the_cart(
    release: Bundle, shop: list, page: list[int], cart: list[int], surface: str, limit: int
) -> None:
    items = stocked(shop)
    named = [tuple(f"item-{row}" for row in rows) for rows in (page, cart)]
    served = listed(release, Request(surface, items=named[0], cart=named[1], limit=limit), items)
    shown = ids(served)
    assert len(set(shown)) == len(shown)
    assert not {*named[0], *named[1]} & set(shown)
    assert all(served.eligible.mask[items.row[item]] for item in shown)
    assert len(shown) == min(limit, int(served.eligible.mask.sum()))


@settings(max_examples=60, deadline=None)
@given(shop=SHOPS, page=st.integers(0, N - 1), limit=st.integers(1, 12))
def test_no_kind_stands_twice_nor_the_page_s_own_wherever_enough_others_are_there(
    release: Bundle, shop: list, page: int, limit: int
) -> None:
    items = stocked(shop)
    served = listed(release, Request("pdp_fbt", items=(f"item-{page}",), limit=limit), items)
    mine = items.category[page]
    others = items.category[served.eligible.mask & ~((items.category == mine) & (mine > 0))]
    if len(set(others[others > 0].tolist())) + int((others == 0).sum()) < limit:
        return  # then filters give way, and the list is full all the same: see above
    shown = items.category[[items.row[item] for item in ids(served)]]
    known = shown[shown > 0].tolist()
    assert mine not in known and len(set(known)) == len(known)


def test_filters_give_way_in_the_order_that_they_are_named(release: Bundle) -> None:
    """Two other kinds, one of them too dear: first the price gives way, then how often a kind stands."""
    rows: list[tuple[str | None, float | None, int]] = [("Home/Lamp", 1.0, 5)] * 50
    rows += [("Home/Bulb", 1.0, 5)] * 5 + [("Home/Piano", 900.0, 5)] * 5
    items, kinds = stocked(rows), []
    for limit in (1, 2, 4, 30):
        served = listed(release, Request("pdp_fbt", items=("item-0",), limit=limit), items)
        found = [items.category[items.row[item]] for item in ids(served)]
        kinds.append(
            {name: found.count(items.category[row]) for name, row in (("b", 50), ("p", 55), ("l", 0))}
        )
    assert kinds[:2] == [{"b": 1, "p": 0, "l": 0}, {"b": 1, "p": 1, "l": 0}]
    assert kinds[2]["l"] == 0 and kinds[2]["b"] + kinds[2]["p"] == 4
    assert kinds[3] == {"b": 5, "p": 5, "l": 20}


def test_the_surfaces_of_params_yaml_are_read_whole() -> None:
    found = parse(yaml.safe_load(PARAMS.read_text())["surfaces"], Surfaces, "surfaces")
    assert found.of("homepage_hero") is None and found.of("pdp_fbt") is found.pdp_fbt
