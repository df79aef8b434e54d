"""Who gets which variant: sticky, by weight, exclusive within a layer, independent between layers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from serving.flags.assignment import DEFAULT, DISABLED, SPLIT, UNTREATED, evaluate, treatment
from serving.flags.flag_document import Flags, parse
from serving.release.router import HOLDOUT, assign
from serving.types import Context, Request

UNITS = [f"shopper-{at}" for at in range(4000)]
HERO = Request("homepage_hero", user_id="u")
AB = [{"name": "control"}, {"name": "b"}]


def flags(*told: dict[str, Any], **more: Any) -> Flags:
    """Running flags f0, f1, ... of variants control and b, salts like their keys."""
    each = [
        {"key": f"f{at}", "salt": f"s{at}", "status": "running", "variants": AB} | one
        for at, one in enumerate(told)
    ]
    return parse(orjson.dumps({"flags": each, **more}))


def variant(found: Flags, unit: str, key: str = "f0", request: Request = HERO) -> str | None:
    return treatment(found, request, unit, False).variants.get(key)


salts = st.text("abcdef0123", min_size=1, max_size=12)
percents = st.floats(0, 100)


@given(st.text(min_size=1, max_size=40), salts, percents, percents)
def test_a_ramp_only_adds_people_and_moves_none(unit: str, salt: str, one: float, other: float) -> None:
    less, more = sorted((one, other))
    before = variant(flags({"salt": salt, "ramp": less}), unit)
    after = variant(flags({"salt": salt, "ramp": more}), unit)
    assert before is None or before == after
    assert variant(flags({"salt": salt, "ramp": 100.0}), unit) is not None


@given(st.text(min_size=1, max_size=40), salts, percents)
def test_two_flags_of_a_layer_never_meet_and_together_hold_everybody(unit: str, salt: str, at: float) -> None:
    at = min(max(at, 0.1), 99.9)
    parts = [{"layer": "l", "slice": {"from": 0, "until": at}}, {"layer": "l", "slice": {"from": at}}]
    found = flags(*parts, layers=[{"name": "l", "salt": salt}])
    assert len(treatment(found, HERO, unit, False).evaluations) == 1


def test_variants_are_shared_out_by_weight_and_the_slice_by_its_width() -> None:
    heavy = [{"name": "control", "weight": 1}, {"name": "b", "weight": 3}]
    found = flags({"variants": heavy, "ramp": 40})
    counts = Counter(variant(found, unit) for unit in UNITS)
    inside = counts["control"] + counts["b"]
    assert abs(inside / len(UNITS) - 0.4) < 0.04
    assert abs(counts["b"] / inside - 0.75) < 0.04


def test_layers_are_independent_of_each_other_of_the_canary_and_of_the_ramp() -> None:
    found = flags({}, {})
    pairs = Counter((variant(found, unit), variant(found, unit, "f1")) for unit in UNITS)
    assert all(abs(many / len(UNITS) - 0.25) < 0.03 for many in pairs.values()) and len(pairs) == 4
    with_arm = Counter((variant(found, unit), assign(unit, "s0", 0.0, 50)) for unit in UNITS)
    assert all(abs(many / len(UNITS) - 0.25) < 0.03 for many in with_arm.values()) and len(with_arm) == 4


def test_the_holdout_and_who_has_no_id_are_in_no_experiment() -> None:
    found = flags({})
    held = [unit for unit in UNITS if assign(unit, "", 0.1, 0) == HOLDOUT]
    assert len(held) > 300
    for unit in held[:20]:
        assert treatment(found, HERO, unit, True) is UNTREATED
    assert treatment(found, Request("homepage_hero"), None, False) is UNTREATED


def test_an_audience_is_asked_for_by_surface_device_country_and_whether_the_shopper_is_known() -> None:
    asks: list[tuple[dict[str, Any], Request, Request]] = [
        ({"surface": ["cart_upsell"]}, Request("cart_upsell"), HERO),
        ({"device": ["mobile"]}, Request("pdp_fbt", context=Context(device="mobile")), HERO),
        ({"country": ["NL"]}, Request("pdp_fbt", context=Context(country="nl")), HERO),
        ({"known": True}, HERO, Request("homepage_hero", session_id="s")),
        ({"known": False}, Request("homepage_hero", session_id="s"), HERO),
    ]
    for audience, meant, other in asks:
        found = flags({"audience": audience})
        assert variant(found, "u", request=meant) and not variant(found, "u", request=other)


def test_reasons_are_those_of_openfeature_and_outside_an_experiment_the_control_is_told() -> None:
    found = flags({"ramp": 50}, {"status": "off"})
    reasons = {unit: evaluate(found, found.flag("f0"), HERO, unit, False).reason for unit in UNITS[:200]}
    assert set(reasons.values()) == {SPLIT, DEFAULT}
    outside = next(unit for unit, reason in reasons.items() if reason == DEFAULT)
    assert evaluate(found, found.flag("f0"), HERO, outside, False).variant.name == "control"
    assert evaluate(found, found.flag("f1"), HERO, "u", False).reason == DISABLED


def test_an_order_of_variants_or_flags_in_the_document_changes_nobody_of_another_flag() -> None:
    one, two = flags({}, {}), flags({}, {})
    turned = Flags(flags=tuple(reversed(two.flags)))
    assert all(variant(one, unit) == variant(turned, unit) for unit in UNITS[:300])
