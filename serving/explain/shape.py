"""POST /v1/explain in JSON Schema: what is asked, and what `explained` answers."""

from typing import Any

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.features.catalogue import SHOWN
from serving.explain.absence import STAGES

Schema = dict[str, Any]
NUMBER, TEXT, COUNT = {"type": "number"}, {"type": "string"}, {"type": "integer", "minimum": 0}


def _either(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def explanation() -> Schema:
    """The answer; null stands for what a product did not come to."""
    source = _object(source=TEXT, quota=COUNT, found=COUNT, brought=COUNT)
    term = _object(name=TEXT, value=_either(NUMBER), adds=NUMBER)
    odds = ("score", "ranker", "ranker_weight", "attraction", "attraction_weight")
    told = {
        "item_id": TEXT,
        "sources": _list(_object(source=TEXT, rank=COUNT)),
        "retrieved": _either(COUNT),
        "ranked": _either(COUNT),
        "popularity": _either(NUMBER),
        "odds": _either(_object(**dict.fromkeys(odds, NUMBER))),
        "values": _either(_object(**dict.fromkeys(COLUMNS, _either(NUMBER)))),
        "contributions": _either(_list(term)),
        "diversity": _either(_object(relevance=NUMBER, closeness=NUMBER, worth=NUMBER)),
        "rules": _list(_object(rule=TEXT, does=TEXT, bars={"type": "boolean"})),
    }
    shown = told | {"slot": COUNT, "score": NUMBER, "source": TEXT}
    stage = {"type": "string", "enum": list(STAGES), "description": "where it fell"}
    fell = told | {"stage": stage, "reason": TEXT, "by": _either(NUMBER)}
    more = {"rule": TEXT} | {name: {"type": ["string", "number", "null"]} for name in SHOWN}
    slots, asked = _object(**shown), _object(**fell)
    slots["properties"] = slots["properties"] | more
    asked["properties"] = asked["properties"] | more
    head: Schema = dict.fromkeys(("surface", "arm", "bundle", "served_from"), TEXT)
    head |= {"degraded": _either(TEXT), "now": COUNT, "phase": _either(TEXT), "candidates": COUNT}
    rules = _object(version=COUNT, held=_list(TEXT))
    parts = {"sources": _list(source), "rules": rules, "warnings": _list(TEXT)}
    return _object(**head, **parts, items=_list(slots), asked=_list(asked))
