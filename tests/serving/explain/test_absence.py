"""What is not in a list fell where it is said to have fallen: without that cause it stands there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shops.rules import IDS, ITEMS, NOW, N, document
from shops.tiny_bundle import make

from feature_repo.features.stored import SESSION_CONTEXT
from feature_repo.folds.fold import Event
from serving.cascade.queueing import Rung
from serving.explain.absence import STAGES, Fall, fall
from serving.explain.explanation import explained
from serving.live.seen import Recorded, Seen
from serving.pipeline import Bundle, recommend, visitor_of
from serving.release import bundle
from serving.rules.compiled import Compiled
from serving.tracing import Trace
from serving.types import NO_ROWS, Request

HERO = Request("homepage_hero", session_id="s", limit=5)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    """Few candidates, so that some products are not retrieved; nothing by chance unless a test wants it."""
    home: Path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENDCAP_HOME", str(home))
        made = bundle.load(make(home, N))
        few = replace(made.retrieve, k=20, quotas={"tower": 8, "ease": 8, "covisit": 4})
        yield replace(made, retrieve=few, diversify=replace(made.diversify, trade_off=0.0, tail_share=0.0))


def session() -> dict[str, Any]:
    state = SESSION_CONTEXT.new()
    for i, (kind, item) in enumerate((("product_viewed", "item-3"), ("add_to_cart", "item-8"))):
        state = SESSION_CONTEXT.step(state, Event(NOW - 1000 + i, kind, None, "s", item))
    return SESSION_CONTEXT.row(state)


def recorded(release: Bundle, *rules: dict[str, Any], request: Request = HERO) -> Recorded:
    compiled = Compiled(document(*rules), ITEMS, NOW, version=7)
    steering, visitor = compiled.steering(request, NOW), visitor_of(request, NOW, None, session())
    seen, trace = Seen("champion", release, 1, NOW, ITEMS, NO_ROWS, None, 0.0, Rung.LIVE), Trace()
    served = recommend(request, release, visitor, ITEMS, steering, trace)
    assert served.slots == recommend(request, release, visitor, ITEMS, steering).slots
    head = request, seen, visitor, steering, served.slots, "live", None, served, trace, ()
    return Recorded(*head, rules=lambda row: compiled.touching(request, NOW, row))


def falls(told: Recorded) -> dict[str, Fall]:
    found = {item: fall(told, item) for item in IDS}
    assert {one.stage for one in found.values()} <= set(STAGES)
    shown = [slot.item_id for slot in told.slots]
    assert [item for item in shown if found[item].stage != "shown"] == []
    assert sum(one.stage == "shown" for one in found.values()) == len(shown)
    return found


def stages(told: Recorded) -> Counter[str]:
    return Counter(one.stage for one in falls(told).values())


def at(found: dict[str, Fall], stage: str) -> list[str]:
    return [item for item, one in found.items() if one.stage == stage]


def test_every_product_is_shown_or_has_one_stage_at_which_it_fell(release: Bundle) -> None:
    told = recorded(release)
    found = falls(told)
    assert fall(told, "elsewhere").stage == "catalogue"
    assert found["item-8"] == Fall("eligibility", "in the cart")
    assert {found[f"item-{i}9"].reason for i in range(1, 5)} == {"sold out"}
    count = Counter(one.stage for one in found.values())
    assert count["shown"] == 5 and count["ranking"] == 15
    assert count["retrieval"] == N - 20 - count["eligibility"]
    assert told.served is not None
    last = told.slots[-1].score
    scores = dict(zip(told.served.ranked.rows.tolist(), told.served.ranked.score.tolist(), strict=True))
    for item in at(found, "ranking"):
        assert found[item].by == pytest.approx(last - scores[ITEMS.row[item]], abs=1e-5)


def test_what_no_source_brought_is_brought_where_the_quota_is_as_much_greater_as_was_wanting(
    release: Bundle,
) -> None:
    few = replace(release.retrieve, quotas={"tower": 20})
    release = replace(release, retrieve=few)
    found = falls(recorded(release))
    missing = {item: round(found[item].by) for item in at(found, "retrieval") if found[item].by is not None}
    assert len(missing) > 10 and min(missing.values()) == 1
    item, short = max(missing.items(), key=lambda one: one[1])
    for more, brought in ((short - 1, False), (short, True)):
        wider = replace(release, retrieve=replace(few, k=20 + more, quotas={"tower": 20 + more}))
        assert (fall(recorded(wider), item).stage != "retrieval") is brought


def test_without_diversity_what_fell_to_it_is_shown(release: Bundle) -> None:
    varied = replace(release, diversify=replace(release.diversify, trade_off=0.6))
    told = recorded(varied)
    fell = at(falls(told), "diversity")
    assert fell and {*fell} <= {slot.item_id for slot in recorded(release).slots}
    for item in fell:
        assert fall(told, item).by >= 0  # type: ignore[operator]
    for one in explained(told, ())["items"]:
        part, t = one["diversity"], varied.diversify.trade_off
        assert part["worth"] == pytest.approx((1 - t) * part["relevance"] - t * part["closeness"], abs=1e-6)


def test_the_draw_of_the_long_tail_is_named(release: Bundle) -> None:
    drawn = replace(release, diversify=replace(release.diversify, tail_share=1.0, tail_below=2.0))
    found, plain = falls(recorded(drawn)), [slot.item_id for slot in recorded(release).slots]
    assert at(found, "chance") == plain[-1:] or plain[-1] in at(found, "shown")


def rule_against(action: str, item: str) -> dict[str, Any]:
    """One that keeps `item` from where it is shown."""
    row = ITEMS.row[item]
    mine = {"brand": ITEMS.brands[ITEMS.brand[row]]}
    others = [name for name in ITEMS.brands if name not in ("", mine["brand"])]
    return {
        "block": {"block": {"where": mine}},
        "floor": {"floor": {"margin": float(ITEMS.margin[row]) + 0.05}},
        "only": {"only": {"where": {"brand": others}}},
        "at_most": {"at_most": {"per": "brand", "slots": 1}},
        "pin": {"pin": {"items": ["item-40", "item-41"], "slots": [0, 1]}},
    }[action]


@pytest.mark.parametrize("action", ["block", "floor", "only", "at_most", "pin"])
def test_what_a_rule_keeps_out_names_it_and_does_not_fall_to_it_without(release: Bundle, action: str) -> None:
    twelve = replace(HERO, limit=12)
    plain = recorded(release, request=twelve)
    without = falls(plain)
    told = recorded(release, rule_against(action, plain.slots[0].item_id), request=twelve)
    found = falls(told)
    fell = at(found, "rule")
    assert fell and at(without, "rule") == []
    assert all("'r0'" in found[item].reason for item in fell)
    assert any(without[item].stage == "shown" for item in fell)
    if action != "pin":  # which concerns others
        concerned = [one["rules"] for one in explained(told, fell)["asked"]]
        assert concerned and all([rule["does"] for rule in rules] == [action] for rules in concerned)


def test_a_rule_that_weighs_is_told_with_the_slot(release: Bundle) -> None:
    first = recorded(release).slots[0].item_id
    told = recorded(release, {"boost": {"where": {"item_id": [first]}, "factor": 0.0}})
    buried = explained(told, [first])["asked"][0]
    assert buried["stage"] == "ranking" and buried["by"] > 0
    assert buried["rules"] == [{"rule": "r0", "does": "boost", "bars": False}]


@pytest.mark.parametrize("surface", ["similar_items", "cart_upsell", "pdp_fbt"])
def test_a_filter_of_the_surface_is_named(release: Bundle, surface: str) -> None:
    request = Request(surface, session_id="s", items=("item-3",), limit=3)
    told = recorded(release, request=request)
    found = falls(told)
    craft = release.surfaces.of(surface)
    assert craft is not None
    barred = at(found, "filter")
    assert barred and all(any(f"({name} of" in found[item].reason for name in craft.relax) for item in barred)
    if surface == "similar_items":  # another kind than the page's
        kind = ITEMS.category[ITEMS.row["item-3"]]
        assert any(ITEMS.category[ITEMS.row[item]] != kind for item in barred)


def test_nothing_on_the_way_depends_on_what_is_noted(release: Bundle) -> None:
    """As `recorded` asserts of every list here; and the trace's figures are copies of no later state."""
    varied = replace(release, diversify=replace(release.diversify, trade_off=0.6))
    choices = recorded(varied).trace.choices
    assert len(choices) == 5
    assert all(np.isfinite(one.worth[one.place]) for one in choices)
    assert all(one.worth[one.place] == one.worth.max() for one in choices)
