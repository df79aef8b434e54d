"""Lists under rules, over a bundle of real parts: no slot empty, doubled or forbidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shops.rules import HERO, IDS, ITEMS, NOW, N, steering
from shops.tiny_bundle import DEPARTMENTS, make

from feature_repo.features.stored import SESSION_CONTEXT
from feature_repo.folds.fold import Event
from serving.pipeline import Bundle, recommend, reorder, visitor_of
from serving.release import bundle
from serving.stages.bestsellers import bestsellers, listed, rail
from serving.stages.diversify import TAIL
from serving.stages.eligibility import eligibility
from serving.stages.steering import PINNED
from serving.types import Request, Slot


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    home: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_HOME", str(home))  # compiled rankers go below it
        yield bundle.load(make(home, N))


def shown(release: Bundle, *rules: dict[str, Any], request: Request = HERO, row: Any = None) -> list[Slot]:
    visitor = visitor_of(request, NOW, None, row)
    return list(recommend(request, release, visitor, ITEMS, steering(*rules, request=request)).slots)


def ids(slots: Any) -> list[str]:
    return [slot.item_id for slot in slots]


def session(*contacts: tuple[str, str]) -> dict[str, object]:
    state = SESSION_CONTEXT.new()
    for i, (kind, item) in enumerate(contacts):
        state = SESSION_CONTEXT.step(state, Event(NOW - 1000 + i, kind, None, "s", item))
    return SESSION_CONTEXT.row(state)


BRANDS = [f"brand {i}" for i in range(7)]
PATHS = [f"Home/{name}" for name in DEPARTMENTS] + ["Home/Apparel/Kind 0", "Home"]
RANGES = st.fixed_dictionaries({"from": st.floats(0, 60), "to": st.floats(60, 120)})
WHERES = st.one_of(
    st.fixed_dictionaries({"brand": st.lists(st.sampled_from(BRANDS), min_size=1, max_size=3)}),
    st.fixed_dictionaries({"category": st.sampled_from(PATHS)}),
    st.fixed_dictionaries({"item_id": st.lists(st.sampled_from(IDS), min_size=1, max_size=9)}),
    st.fixed_dictionaries({"price": RANGES, "brand": st.sampled_from(BRANDS)}),
    st.fixed_dictionaries({"margin": st.fixed_dictionaries({"from": st.floats(0, 0.5)})}),
)


def pins(pairs: dict[int, str]) -> dict[str, Any]:
    return {"pin": {"slots": list(pairs), "items": list(pairs.values())}}


PINS = st.dictionaries(st.integers(0, 14), st.sampled_from(IDS), min_size=1, max_size=4).filter(
    lambda pairs: len(set(pairs.values())) == len(pairs)
)
RULES = st.one_of(
    PINS.map(pins),
    st.fixed_dictionaries({"boost": st.fixed_dictionaries({"where": WHERES, "factor": st.floats(0, 5)})}),
    st.fixed_dictionaries({"block": st.fixed_dictionaries({"where": WHERES})}),
    st.fixed_dictionaries({"only": st.fixed_dictionaries({"where": WHERES})}),
    st.fixed_dictionaries({"floor": st.fixed_dictionaries({"margin": st.floats(0, 0.5)})}),
    st.fixed_dictionaries(
        {
            "at_most": st.fixed_dictionaries(
                {"per": st.sampled_from(["brand", "category"]), "slots": st.integers(1, 4)}
            )
        }
    ),
)


@settings(max_examples=100, deadline=None)
@given(
    rules=st.lists(RULES, max_size=6),
    limit=st.integers(1, 15),
    exclude=st.lists(st.sampled_from(IDS), max_size=6),
    trade_off=st.sampled_from([0.0, 0.3]),
    held_out=st.booleans(),
)
def test_no_rules_leave_a_slot_empty_doubled_or_forbidden_while_products_may_be_shown(
    release: Bundle,
    rules: list[dict[str, Any]],
    limit: int,
    exclude: list[str],
    trade_off: float,
    held_out: bool,
) -> None:
    row = session(("product_viewed", "item-3"), ("purchase_completed", "item-8"), ("add_to_cart", "item-2"))
    request = Request("homepage_hero", session_id="s", exclude=tuple(exclude), limit=limit)
    visitor, asked = visitor_of(request, NOW, None, row), steering(*rules, request=request)
    varied = replace(release, diversify=replace(release.diversify, trade_off=trade_off, tail_share=0.5))
    if held_out:
        slots = bestsellers(request, visitor, ITEMS, asked)
    else:
        slots = recommend(request, varied, visitor, ITEMS, asked).slots
    eligible = eligibility(request, visitor, ITEMS, steering=asked)
    rows = [ITEMS.row[item] for item in ids(slots)]
    assert [slot.slot for slot in slots] == list(range(len(slots)))
    assert len(set(rows)) == len(rows) <= limit
    assert eligible.mask[rows].all()
    assert not {"item-8", "item-2", *exclude} & set(ids(slots))
    pinned = {pin.row for pin in asked.pinned(eligible.may, limit)}
    assert pinned <= set(rows)
    for cap in asked.caps:
        used = Counter(int(cap.codes[row]) for row in rows)
        of_pins = Counter(int(cap.codes[row]) for row in pinned)
        assert all(n <= max(cap.slots, of_pins[code]) for code, n in used.items())
    if len(slots) < limit:  # then nothing more could have been added

        def fits(row: int) -> bool:
            counts = ((cap, sum(cap.codes[other] == cap.codes[row] for other in rows)) for cap in asked.caps)
            return all(n < cap.slots for cap, n in counts)

        assert not [row for row in np.flatnonzero(eligible.mask).tolist() if row not in rows and fits(row)]


def test_a_pin_stands_in_its_slot_and_names_its_rule_and_what_it_pushes_moves_on(release: Bundle) -> None:
    plain = ids(shown(release))
    outside = next(item for item in IDS if item not in plain and ITEMS.stock[ITEMS.row[item]] > 0)
    slots = shown(release, pins({0: outside, 3: plain[5]}))
    assert (slots[0].item_id, slots[3].item_id) == (outside, plain[5])
    assert [slot.rule for slot in slots[:4]] == ["r0", None, None, "r0"]
    rest = [item for item in plain if item != plain[5]]
    assert [slot.item_id for slot in slots if slot.rule is None][:9] == rest[:9]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("sold out", {}),
        ("just bought", {}),
        ("in the cart", {}),
        ("excluded", {"exclude": ("item-11",)}),
        ("of the page", {"items": ("item-11",)}),
        ("blocked by a rule of lower rank", {}),
        ("outside the assortment", {}),
    ],
)
def test_a_pin_never_shows_what_may_not_be_shown_and_its_slot_goes_to_the_next_best(
    release: Bundle, name: str, fields: dict[str, Any]
) -> None:
    item = "item-9" if name == "sold out" else "item-11"
    kind = {"just bought": "purchase_completed", "in the cart": "add_to_cart"}.get(name)
    row = session((kind, item)) if kind else None
    more = {
        "blocked by a rule of lower rank": [{"block": {"where": {"item_id": [item]}}}],
        "outside the assortment": [{"only": {"where": {"category": "Home/Bags"}}}],
    }.get(name, [])
    request = Request("homepage_hero", **fields)
    without = shown(release, *more, request=request, row=row)
    slots = shown(release, pins({0: item}), *more, request=request, row=row)
    assert item not in ids(slots)
    assert ids(slots) == ids(without)
    assert len(slots) == (12 if name != "outside the assortment" else len(without))


def test_a_block_of_the_best_products_keeps_the_list_full_from_behind(release: Bundle) -> None:
    best = ids(shown(release))
    slots = shown(release, {"block": {"where": {"item_id": best[:10]}}})
    assert len(slots) == 12
    assert not set(best[:10]) & set(ids(slots))


def test_a_boost_lifts_a_bury_sinks_and_the_first_rule_of_two_decides(release: Bundle) -> None:
    request = replace(HERO, limit=100)
    row = session(("product_viewed", "item-3"), ("add_to_cart", "item-8"))
    plain = shown(release, request=request, row=row)
    lowest = min(slot.score for slot in plain)
    at = max(slot.slot for slot in plain[:30] if slot.score > lowest)
    item = plain[at].item_id
    boost = {"boost": {"where": {"item_id": [item]}, "factor": 50.0}}
    bury = {"boost": {"where": {"item_id": [item]}, "factor": 0.0}}

    def place(*rules: dict[str, Any]) -> int:
        return ids(shown(release, *rules, request=request, row=row)).index(item)

    assert place(boost) < at < place(bury)
    assert (place(boost, bury), place(bury, boost)) == (place(boost), place(bury))
    slot = shown(release, boost, request=request, row=row)[place(boost)]
    assert (slot.rule, slot.score) == ("r0", plain[at].score)


def test_caps_hold_and_are_filled_from_outside_the_candidates(release: Bundle) -> None:
    few = replace(release, retrieve=replace(release.retrieve, k=12, quotas={"popular": 12}))
    asked = steering({"at_most": {"per": "brand", "slots": 2}})
    slots = recommend(HERO, few, visitor_of(HERO, NOW, None, None), ITEMS, asked).slots
    assert len(slots) == 12
    assert max(Counter(ITEMS.brand[ITEMS.row[i]] for i in ids(slots)).values()) == 2


def test_a_pinned_last_slot_is_no_draw_of_the_long_tail(release: Bundle) -> None:
    drawn = replace(release, diversify=replace(release.diversify, tail_share=1.0, tail_below=2.0))
    visitor = visitor_of(HERO, NOW, None, None)
    plain = recommend(HERO, drawn, visitor, ITEMS)
    assert plain.slots[-1].source == TAIL and plain.propensity < 1
    pinned = recommend(HERO, drawn, visitor, ITEMS, steering(pins({11: "item-11"})))
    assert (pinned.slots[-1].item_id, pinned.propensity) == ("item-11", 1.0)
    assert TAIL not in {slot.source for slot in pinned.slots}


def test_what_only_a_rule_brought_says_so_and_has_a_score_of_its_own(release: Bundle) -> None:
    few = replace(release, retrieve=replace(release.retrieve, k=12))
    visitor = visitor_of(HERO, NOW, None, None)
    found = recommend(HERO, few, visitor, ITEMS).candidates.rows
    item = next(i for i in IDS if ITEMS.row[i] not in found and ITEMS.stock[ITEMS.row[i]] > 0)
    served = recommend(HERO, few, visitor, ITEMS, steering(pins({2: item})))
    slot = served.slots[2]
    assert (slot.item_id, slot.source, slot.rule) == (item, PINNED, "r0")
    assert len(served.ranked.rows) == 13 and served.ranked.matrix.shape == (13, 28)


def test_every_fallback_bars_what_the_rules_bar(release: Bundle) -> None:
    asked = steering({"block": {"where": {"brand": ["brand 0", "brand 1"]}}}, pins({0: "item-11"}))
    barred = {item for item in IDS if ITEMS.brand[ITEMS.row[item]] in (1, 2)}
    visitor = visitor_of(HERO, NOW, None, None)
    holdout = bestsellers(HERO, visitor, ITEMS, asked)
    assert holdout[0].item_id == "item-11" and holdout[0].rule == "r1" and len(holdout) == 12
    last = rail(release.rails["popular"], HERO, visitor, ITEMS, asked)
    assert len(last) == 12
    assert not barred & {*ids(holdout), *ids(last)}


def test_a_given_list_loses_nothing_that_is_on_sale_and_what_is_barred_comes_last(release: Bundle) -> None:
    request = Request("category_sort", items=tuple(IDS[:9]))
    visitor = visitor_of(request, NOW, None, None)
    rules = ({"block": {"where": {"item_id": ["item-4"]}}}, pins({0: "item-7"}))
    asked = steering(*rules, request=request)
    for slots in (
        reorder(request, release, visitor, ITEMS, asked).slots,
        listed(request, visitor, ITEMS, asked),
    ):
        assert sorted(ids(slots)) == sorted(IDS[:9])
        assert (slots[0].item_id, slots[0].rule, slots[-1].item_id) == ("item-7", "r1", "item-4")
    assert ids(listed(request, visitor, ITEMS)) == IDS[:9]
