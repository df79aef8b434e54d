"""The door: whatever is sent is a document of rules, or refused by rule, field, value and what is allowed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.events import SURFACES
from serving.rules.document import ACTIONS, MAX_RULES, Document, parse, render, schema
from serving.rules.faults import RulesError

ROOT = Path(__file__).resolve().parents[3]
KEYS = ["id", "why", "when", "do", "rules", "version", "where", "factor", "surface", "brand", "price", "from"]
KEYS += [
    "to",
    "until",
    "items",
    "slots",
    "per",
    "known",
    "margin",
    "page_category",
    *ACTIONS,
    "x",
    "__proto__",
]
ATOMS = [None, True, False, 0, 1, -3, 1.5, 1e300, 10**30, "", "a", "é\x00", "<script>", "mobile", "brand"]
ATOMS += [*SURFACES, "2026-12-01T00:00:00+01:00", "2026-12-01", "SKU-1", float("nan")]
SOUND = [
    {"pin": {"items": ["a", "b"], "slots": [0, 3]}},
    {"boost": {"where": {"brand": ["A"], "price": {"from": 1, "to": 5}}, "factor": 1.5}},
    {"block": {"where": {"category": "Home/Knives", "tag": "sale"}}},
    {"floor": {"margin": 0.15, "stock": 3}},
    {"at_most": {"per": "brand", "slots": 3}},
]


def anything(rng: random.Random, depth: int = 3) -> Any:
    kind = rng.random() if depth else 1.0
    if kind < 0.2:
        return [anything(rng, depth - 1) for _ in range(rng.randrange(3))]
    if kind < 0.4:
        return {rng.choice(KEYS): anything(rng, depth - 1) for _ in range(rng.randrange(4))}
    return rng.choice(ATOMS)


def damaged(value: Any, rng: random.Random) -> Any:
    """`value`, in which each part may have become another."""
    if rng.random() < 0.04:
        return anything(rng)
    if isinstance(value, dict):
        kept = {name: damaged(part, rng) for name, part in value.items() if rng.random() > 0.02}
        return kept | ({rng.choice(KEYS): anything(rng)} if rng.random() < 0.04 else {})
    return [damaged(part, rng) for part in value] if isinstance(value, list) else value


def random_document(rng: random.Random) -> Any:
    when = {"surface": [rng.choice(SURFACES)], "known": True, "until": "2026-12-01T00:00:00+01:00"}
    rules = [
        {"id": f"r{n}", "why": "b", "do": rng.choice(SOUND)} | ({"when": when} if rng.random() < 0.5 else {})
        for n in range(rng.randrange(4))
    ]
    return damaged({"rules": rules}, rng) if rng.random() < 0.9 else anything(rng)


def rule(**fields: Any) -> dict[str, Any]:
    return {"id": "sale", "do": {"block": {"where": {"brand": "Acme"}}}} | fields


def faults(*rules: Any) -> list[str]:
    with pytest.raises(RulesError) as refused:
        parse(orjson.dumps({"rules": rules}))
    return [fault.line() for fault in refused.value.faults]


def test_ten_thousand_random_documents_are_accepted_or_refused_by_name() -> None:
    rng = random.Random(7)
    validator = jsonschema.Draft202012Validator(schema())
    accepted = 0
    for _ in range(10_000):
        document = random_document(rng)
        text = json.dumps(document).encode()
        try:
            found = parse(text)
        except RulesError as error:
            assert error.faults
            assert all(fault.rule and fault.field and fault.value and fault.allowed for fault in error.faults)
            assert str(error).isprintable()
        else:
            accepted += 1
            assert parse(render(found)) == found.model_copy(update={"version": None})
            assert accepted > 200 or validator.is_valid(document)
    assert 1_000 < accepted < 9_000


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_are_a_document(text: bytes) -> None:
    try:
        assert isinstance(parse(text), Document)
    except RulesError as error:
        assert error.faults[0].field


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            rule(do={"boost": {"where": {"brand": ["A"]}, "factor": -1}}),
            "rule 'sale', do.boost.factor: -1 is not allowed; allowed: greater than or equal to 0",
        ),
        (rule(do={}), "do: {} is not allowed; allowed: one of pin, boost, block, floor, at_most, only"),
        (rule(id="a b"), "rule 'a b', id: 'a b' is not allowed; allowed: letters, digits, . _ and -"),
        (rule(when={"surface": ["home"]}), "surface[0]: 'home' is not allowed; allowed: 'homepage_hero'"),
        (rule(when={"weekday": 1}), "when.weekday: 1 is not allowed; allowed: the keys surface, device"),
        (rule(when={"from": "2026-12-01T00:00:00"}), "when.from: '2026-12-01T00:00:00' is not allowed"),
        (
            rule(when={"from": "2026-12-02T00:00:00Z", "until": "2026-12-01T00:00:00Z"}),
            "is not allowed; allowed: `from` before `until`",
        ),
        (rule(do={"pin": {"items": ["a", "b"], "slots": [0]}}), "allowed: as many slots as items"),
        (rule(do={"pin": {"items": ["a", "b"], "slots": [0, 0]}}), "allowed: each item and each slot once"),
        (rule(do={"block": {"where": {}}}), "block.where: {} is not allowed; allowed: one or more of "),
        (rule(do={"block": {"where": {"price": {}}}}), "allowed: `from`, `to` or both"),
        (rule(do={"floor": {}}), "allowed: margin, stock or both"),
        (rule(do={"at_most": {"per": "brand", "slots": True}}), "slots: True is not allowed; allowed: int"),
        ({"do": {}}, "rule '#1', id: none is not allowed; allowed: a value: the key is needed"),
        (5, "rule '#1', rule: 5 is not allowed; allowed: an object"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_rule_field_value_and_what_is_allowed(wrong: Any, told: str) -> None:
    assert any(told in line for line in faults(wrong)), faults(wrong)


def test_two_rules_of_one_id_and_a_key_given_twice_are_refused() -> None:
    assert faults(rule(), rule()) == [
        "refused: rule 'sale', id: 'sale' is not allowed; allowed: each id once"
    ]
    with pytest.raises(RulesError, match="'rules' is given twice"):
        parse(b'{"rules": [], "rules": []}')


def test_more_rules_than_a_document_may_have_are_refused() -> None:
    many = [rule(id=f"r{n}") for n in range(MAX_RULES + 1)]
    assert "allowed: " in faults(*many)[0]


def test_every_fault_is_told_and_the_error_is_one_line() -> None:
    with pytest.raises(RulesError) as refused:
        parse(orjson.dumps({"rules": [rule(why=5), rule(id="b", when={"known": "yes"})]}))
    assert [fault.field for fault in refused.value.faults] == ["why", "when.known"]
    assert "(and 1 more)" in str(refused.value) and "\n" not in str(refused.value)


def test_the_published_schema_is_that_of_the_program() -> None:
    published = ROOT / "docs" / "rules.schema.json"
    assert json.loads(published.read_text()) == schema(), "python -m serving.rules.document writes it"


def test_the_example_of_the_docs_fits_schema_and_program() -> None:
    page = (ROOT / "docs" / "merchandising.md").read_text()
    blocks = [block.partition("```")[0] for block in page.split("```json\n")[1:]]
    assert len(blocks) >= 2
    for block in blocks:
        jsonschema.validate(json.loads(block), schema())
        assert parse(block.encode()).rules
