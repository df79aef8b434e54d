"""Rules for a shop of 60 products, as a merchandiser writes them."""

from __future__ import annotations

from typing import Any

import orjson
from shops.tiny_bundle import catalogue, matrix

from feature_repo.assemble.matrix import ItemMatrix
from serving.rules.compiled import Compiled
from serving.rules.document import Document, parse
from serving.stages.steering import Steering
from serving.types import Request

NOW = 1_700_000_000_000_000
N = 60
HERO = Request("homepage_hero", session_id="s")
IDS = [f"item-{i}" for i in range(N)]
ITEMS = matrix(catalogue(N))


def document(*rules: dict[str, Any]) -> Document:
    """Rules called r0, r1, ...; each is {action: ..., "when": ...}."""
    told = [
        {"id": f"r{at}", "do": {name: value for name, value in rule.items() if name != "when"}}
        | ({"when": rule["when"]} if "when" in rule else {})
        for at, rule in enumerate(rules)
    ]
    return parse(orjson.dumps({"rules": told}))


def steering(*rules: dict[str, Any], request: Request = HERO, items: ItemMatrix = ITEMS) -> Steering:
    return Compiled(document(*rules), items, NOW, version=7).steering(request, NOW)
