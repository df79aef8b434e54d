"""What the door takes and gives, in JSON Schema 2020-12, made of the constants that the door checks by.

A schema says what is accepted and nothing less or more. What none can say: that a whole number is written
without a point (3.0 is refused), a key only once, and the limits of time that move with the clock.
"""

from typing import Any

from feature_repo.events import (
    COUNT_FIELDS,
    ID_FIELDS,
    ITEM_NAMES,
    ITEMLESS_TYPES,
    MAX_PRICE,
    SCHEMA,
    SURFACES,
    TEXT_FIELDS,
    TYPES,
)
from feature_repo.features.catalogue import ITEM_CATALOGUE, SHOWN
from feature_repo.features.item_check import (
    CURRENCY,
    ITEM_NUMBERS,
    ITEM_TEXTS,
    MAX_ACCESSORIES,
    MAX_DESCRIPTION,
    MAX_STOCK,
    MAX_TAG,
    MAX_TAGS,
)
from serving.access.counting import WHY_NOT
from serving.http.inquiry import ASKED, MOST_ASKED
from serving.http.requests import CONTEXT_FIELDS, FIELDS, FIRST_US, LAST_US, MAX_LIMIT, PER_LIST
from serving.params import Serving

Schema = dict[str, Any]
DEFAULT_LIMIT = 12
_DAY = (
    "(20[0-9]{2}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    "|02-(0[1-9]|1[0-9]|2[0-8]))|20([02468][048]|[13579][26])-02-29)"
)
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])"


def text(doc: str) -> Schema:
    """A string of 1 to 256 characters without control characters, as feature_repo.events.is_id has it."""
    pattern = r"^[^\u0000-\u001f\u007f-\u009f]{1,256}$"
    return {"type": "string", "minLength": 1, "maxLength": 256, "pattern": pattern, "description": doc}


def ids(doc: str, most: int) -> Schema:
    return {"type": "array", "items": text("an item's id"), "maxItems": most, "description": doc}


def whole(doc: str, low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high, "description": doc}


def instant(doc: str) -> Schema:
    written = {"type": "string", "format": "date-time", "pattern": f"^{_DAY}T{_TIME}$"}
    return {"anyOf": [whole("us since 1970", FIRST_US, LAST_US - 1), written], "description": doc}


def listed(doc: str, names: tuple[str, ...]) -> Schema:
    return {"type": "string", "enum": list(names), "description": doc}


def nullable(schema: Schema) -> Schema:
    """null means absent, anywhere but in what is required."""
    if "anyOf" in schema:
        return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    return schema | {"type": [schema["type"], "null"]}


PROOF = "of user_id by the shop's server, where access.keys.user_proof asks for one"


def fields(params: Serving) -> dict[str, Schema]:
    """Each of requests.FIELDS; all but the surface may be absent."""
    most = params.max_items
    told = {"type": "array", "items": listed("a column of the catalogue", SHOWN), "maxItems": len(SHOWN)}
    context = {name: nullable(text(f"the shopper's {name}")) for name in CONTEXT_FIELDS}
    found = {
        "surface": listed("the shelf that is filled", SURFACES),
        "user_id": text("the shopper, where known; an unknown one is no error"),
        "session_id": text("the visit"),
        "user_proof": text(PROOF),
        "items": ids("the products of the page: they steer the list and are not in it", most),
        "cart": ids("what is in the cart: likewise", most),
        "exclude": ids("not to be shown", most),
        "context": object_of(context, doc="where the shopper is"),
        "limit": whole("how many slots", 1, MAX_LIMIT) | {"default": DEFAULT_LIMIT},
        "debug": {
            "type": "boolean",
            "description": "adds the model inputs of every slot, and who was left out; with the secret key",
        },
        "as_of": instant("asks as of then; only where the service replays, with the secret key"),
        "fields": told | {"description": "what each slot carries of the catalogue besides"},
    }
    assert set(found) == set(FIELDS)
    return {name: one if name == "surface" else nullable(one) for name, one in found.items()}


def object_of(properties: dict[str, Schema], *required: str, doc: str = "") -> Schema:
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": list(required)} if required else {}) | ({"description": doc} if doc else {})


def recommend(params: Serving) -> Schema:
    return object_of(fields(params), "surface")


def explain(params: Serving) -> Schema:
    """As recommend, and the products asked for besides."""
    asked = nullable(ids("why is each of these not shown, or shown", MOST_ASKED))
    return object_of(fields(params) | {ASKED: asked}, "surface")


def rank(params: Serving) -> Schema:
    """As recommend, but with items to order, and all of them."""
    found = {name: one for name, one in fields(params).items() if name != "limit"}
    found["items"] = ids("what is to be ordered", params.max_items) | {"minItems": 1}
    return object_of(found, "surface", "items")


def page(params: Serving) -> Schema:
    every = fields(params)
    one = object_of({name: every[name] for name in PER_LIST}, "surface")
    lists = {"type": "array", "items": one, "minItems": 1, "maxItems": params.max_surfaces}
    shared = {name: schema for name, schema in every.items() if name not in PER_LIST}
    return object_of({"surfaces": lists} | shared, "surfaces")


def event() -> Schema:
    """What feature_repo.events.check_event accepts, but for the limits of time."""
    found: dict[str, Schema] = {name: nullable(text(f"{name} of the shop")) for name in ID_FIELDS}
    found |= {name: nullable(text(name)) for name in TEXT_FIELDS}
    found |= {name: nullable(whole(name, *limits)) for name, limits in COUNT_FIELDS.items()}
    when = "when it happened; now where it is absent. At most 7 days ago and 5 minutes ahead"
    found |= {
        "session_id": text("the visit"),
        "type": listed("what the shopper did", TYPES),
        "event_ts": nullable(instant(when)),
        "ts": nullable(instant("another name of event_ts")),
        "price": nullable(
            {"type": "number", "minimum": 0, "maximum": MAX_PRICE, "description": "of one piece"}
        ),
        "consent": nullable(
            {"type": "boolean", "description": "false: the shopper did not agree", "default": True}
        ),
    }
    assert {*found} == {*SCHEMA.names, "ts"} - {"created_ts"}
    itemless = {"properties": {"type": {"enum": list(ITEMLESS_TYPES)}}}
    named = {"properties": {"item_id": {"type": "string"}}, "required": ["item_id"]}
    one_time = [{"properties": {name: {"type": "null"}}} for name in ("ts", "event_ts")]
    return object_of(found, "type", "session_id") | {
        "allOf": [{"anyOf": [itemless, named]}, {"anyOf": one_time}]
    }


def events(params: Serving) -> Schema:
    batch = {"type": "array", "items": event(), "minItems": 1, "maxItems": params.max_events}
    sent = nullable(instant("what the device's clock showed when it sent them"))
    told: dict[str, Schema] = {"events": batch, "sent_at": sent, "user_proof": nullable(text(PROOF))}
    return object_of(told, "events")


def change() -> Schema:
    """What serving.http.listing.canonical_change accepts of an item, but for the limits of time."""
    line = r"^[^\u0000-\u001f\u007f-\u009f]+$"
    found: dict[str, Schema] = {
        name: {"type": "string", "minLength": 1, "maxLength": most, "pattern": line, "description": name}
        for name, most in ITEM_TEXTS.items()
    }
    found |= {
        name: {"type": "number", "minimum": 0, "maximum": most, "description": name}
        for name, most in ITEM_NUMBERS.items()
    }
    found |= {
        "description": {"type": "string", "maxLength": MAX_DESCRIPTION, "description": "longer text"},
        "currency": {"type": "string", "pattern": f"^{CURRENCY}$", "description": "ISO 4217"},
        "stock": whole("how many there are", 0, MAX_STOCK),
        "accessories": ids("products that go with it", MAX_ACCESSORIES),
        "tags": {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": MAX_TAG, "pattern": line},
            "maxItems": MAX_TAGS,
            "description": "words of the shop's own, for its rules",
        },
        "available_from": instant("its first day of sale"),
    }
    said = {name: schema if name == "title" else nullable(schema) for name, schema in found.items()}
    own = {"item_id": text("the item"), "event_ts": nullable(instant("since when it holds; absent: now"))}
    assert {*said, "item_id"} == {*ITEM_NAMES}
    flag: Schema = {"type": ["boolean", "null"], "description": "true takes the item off the shelves"}
    kept, gone = flag | {"enum": [False, None]}, {"const": True, "description": flag["description"]}
    back = {"properties": {"deleted": {"const": False}}, "required": ["deleted"]}
    something = [*({"required": [name]} for name in said), back]
    return {
        "anyOf": [
            object_of({**own, **said, "deleted": kept}, "item_id") | {"anyOf": something},
            object_of({**own, "deleted": gone}, "item_id", "deleted"),
        ]
    }


def changes(params: Serving) -> Schema:
    batch = {"type": "array", "items": change(), "minItems": 1, "maxItems": params.max_changes}
    return object_of({"items": batch}, "items")


def answer() -> Schema:
    """types.Answer as JSON; the columns of the catalogue only where `fields` asked for them."""
    numbers = {column.name for column in ITEM_CATALOGUE.columns if column.dtype != "string"}
    shown = {name: {"type": ["number" if name in numbers else "string", "null"]} for name in SHOWN}
    slot: dict[str, Schema] = {
        **{name: {"type": "string"} for name in ("item_id", "source")},
        "slot": {"type": "integer", "minimum": 0},
        "score": {"type": "number"},
    }
    rule: dict[str, Schema] = {"rule": {"type": "string", "description": "the shop's rule that put it there"}}
    told: dict[str, Schema] = {
        name: {"type": "string"} for name in ("request_id", "surface", "arm", "bundle", "served_from")
    }
    told |= {"degraded": {"type": ["string", "null"]}, "feature_age_ms": {"type": ["integer", "null"]}}
    told |= {
        "items": {
            "type": "array",
            "items": {"type": "object", "properties": slot | shown | rule, "required": list(slot)},
        }
    }
    told |= {"took_ms": {"type": "number"}}
    more: dict[str, Schema] = {"warnings": {"type": "array", "items": {"type": "string"}}}
    more |= {"flags": {"type": "array", "items": evaluation()}, "debug": {"type": "object"}}
    return {"type": "object", "properties": told | more, "required": list(told)}


def evaluation() -> Schema:
    """What an experiment gives this shopper, in OpenFeature's names; `value` where the variant has one."""
    named: dict[str, Schema] = {name: {"type": "string"} for name in ("flag_key", "variant", "reason")}
    return {"type": "object", "properties": named | {"value": {}}, "required": list(named)}


def listing_receipt() -> Schema:
    """Of POST /v1/items."""
    why: dict[str, Schema] = {"index": {"type": "integer"}, "item_id": {"type": ["string", "null"]}}
    why |= {name: {"type": "string"} for name in ("field", "value", "allowed")}
    found: dict[str, Schema] = {"accepted": {"type": "integer", "minimum": 0}}
    found |= {"rejected": {"type": "array", "items": object_of(why, *why)}}
    return object_of(found | {"applied": {"type": "boolean"}}, *found)


def receipt() -> Schema:
    counts: dict[str, Schema] = {
        name: {"type": "integer", "minimum": 0} for name in ("accepted", "duplicates")
    }
    why: dict[str, Schema] = {
        "index": {"type": "integer"},
        "event_id": {"type": ["string", "null"]},
        "error": {"type": "string"},
    }
    rejected = {"type": "array", "items": object_of(why, *why)}
    found = counts | {"rejected": rejected}
    reasons = object_of({name: {"type": "integer", "minimum": 1} for name in WHY_NOT})
    return object_of(found | {"applied": {"type": "boolean"}, "uncounted": reasons}, *found)


def refusal() -> Schema:
    told = {name: {"type": "string"} for name in ("field", "value", "allowed", "next")}
    return object_of({"error": object_of(told, *told)}, "error")


def unavailable() -> Schema:
    told = {name: {"type": "string"} for name in ("reason", "next")}
    return object_of({"error": object_of(told, *told)}, "error")
