"""A document against the catalogue: what names nothing, lacks a field, contradicts or starves is told."""

from __future__ import annotations

from typing import Any

import pytest
from shops.rules import IDS, ITEMS, NOW, N, document

from feature_repo.assemble.matrix import ItemMatrix
from serving.rules.lint import faults

PIN = {"pin": {"items": ["item-3"], "slots": [0]}}


def told(*rules: dict[str, Any], items: ItemMatrix = ITEMS) -> list[str]:
    return [fault.line() for fault in faults(document(*rules), items, NOW)]


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ([{"pin": {"items": ["item-99"], "slots": [0]}}], "do.pin.items: 'item-99' is no product"),
        ([{"block": {"where": {"brand": "Acme"}}}], "do.block.where.brand: 'Acme' is not in the cat"),
        ([{"block": {"where": {"category": "Home/Apparel/X"}}}], "where.category: 'Home/Apparel/X' is not"),
        ([{"block": {"where": {"tag": ["sale"]}}}], "refused: rule 'r0', do.block.where.tag: "),
        ([{"only": {"where": {"price": {"from": 900}}}}], "refused: rule 'r0', do.only.where: no product"),
        ([PIN | {"when": {"until": "2020-01-01T00:00:00Z"}}], "when.until: 2020-01-01T00:00:00+00:00 is"),
        ([PIN, {"block": {"where": {"brand": "brand 3"}}}], "do.pin.items: 'item-3' is barred by rule 'r1'"),
        ([PIN, {"only": {"where": {"brand": ["brand 0", "brand 1"]}}}], "'item-3' is barred by rule 'r1'"),
        ([{"only": {"where": {"brand": "brand 0"}}}], "warning: rule 'r0', do: 8 products are left for"),
    ],
)  # fmt: skip
def test_what_looks_wrong_is_told_with_its_rule(rules: list[dict[str, Any]], line: str) -> None:
    assert any(line in one for one in told(*rules)), told(*rules)


def test_rules_that_never_meet_do_not_contradict_and_sound_rules_are_not_told_of() -> None:
    block = {"block": {"where": {"item_id": ["item-3"]}}}
    assert (
        told(PIN | {"when": {"surface": ["pdp_fbt"]}}, block | {"when": {"surface": ["cart_upsell"]}}) == []
    )
    assert told({"floor": {"margin": 0.15}}, {"boost": {"where": {"brand": "brand 1"}, "factor": 2}}) == []


def test_a_rule_on_what_the_catalogue_does_not_tell_is_refused() -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("price", "margin", "stock", "category_path", "brand"), [None] * N
    )
    bare = ItemMatrix(IDS, nothing | {"available_from": [None] * N})
    rules = [{"floor": {"margin": 0.1}}, {"at_most": {"per": "brand", "slots": 2}}]
    lines = told(*rules, {"block": {"where": {"brand": "brand 1"}}}, items=bare)
    assert [line.partition(":")[0] for line in lines] == ["refused"] * 3
    assert "rule 'r0', do.floor.margin: 0.1 is not allowed" in lines[0]
    assert "it holds no margin of any product" in lines[0]
