"""JSON or query string -> types.Request. Strict: what does not fit is refused by name, never repaired.

null means absent, anywhere. Types are not converted: `limit: true`, `1.0` and `"12"` are all wrong.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from feature_repo.clock import micros
from feature_repo.events import EARLIEST, SURFACES, is_id
from feature_repo.features.catalogue import SHOWN
from serving.errors import RequestError
from serving.types import Context, Request

MAX_LIMIT = 100
MAX_PAIRS = 3_200  # parameters of a GET: its three lists at their longest, and the others
PARTS, MAX_PARTS = (b",", b"[", b"{"), 32_768  # 1,000 events with every field have 20,001
FIELDS, CONTEXT_FIELDS = (tuple(field.name for field in fields(kind)) for kind in (Request, Context))
_LISTS = ("items", "cart", "exclude")
PER_LIST = ("surface", "items", "limit")  # of a page; all else is the page's
_ID = "a string of 1 to 256 characters without control characters"
FIRST_YEAR, LAST_YEAR = EARLIEST.year, 2100
FIRST_US = micros(EARLIEST)
LAST_US = 4_102_444_800_000_000  # 2100-01-01
_INSTANT = "microseconds since 1970 or ISO 8601 with a time zone, from 2000 to 2099"


def parse_object(body: bytes, halves: bool = False) -> dict[str, Any]:
    """The JSON object in `body`; refuses what parse_json does, and any other value (400)."""
    value = parse_json(body, halves)
    if not isinstance(value, dict):
        raise RequestError("body", value, "a JSON object", status=400, next_step="wrap it in {}")
    return value


def parse_json(body: bytes, halves: bool = False) -> Any:
    """The JSON value in `body`. Refuses what is not JSON, repeats a key (400) or has too many parts (422).

    With `halves` texts may hold half a character (a lone surrogate, as of an emoji cut in two): the caller
    then judges each.

    orjson settles the grammar (UTF-8, no NaN, no lone surrogates); the second pass finds repeated keys, which
    orjson would silently resolve to the last. What the passes cost grows with a body's parts more than with
    its bytes: a MiB of `{},` would hold everybody up for 0.1 s.
    """
    if sum(map(body.count, PARTS)) > MAX_PARTS:
        allowed = f"at most {MAX_PARTS} commas, brackets and braces, those in texts included"
        raise RequestError("body", "more", allowed, next_step="send less at once")
    try:
        value = _loads(body, halves)
        json.loads(body, object_pairs_hook=_distinct, parse_int=str, parse_float=str)
    except RequestError:
        raise
    except (ValueError, RecursionError) as error:
        raise RequestError(
            "body", body[:60], "one JSON object in UTF-8", status=400, next_step=f"send valid JSON ({error})"
        ) from None
    return value


def _loads(body: bytes, halves: bool) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        if not halves or b"\\u" not in body:  # a half can only be written as an escape
            raise
        return json.loads(body.decode(), parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > 1:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            seen: set[str] = set()
            twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise RequestError(
                twice, "given twice", "each key once", status=400, next_step=f"send {twice!a} once"
            )


def parse_recommend(body: bytes, max_items: int) -> Request:
    """The body of POST /v1/recommend; `max_items` bounds each of items, cart and exclude."""
    return build(parse_object(body), max_items)


def parse_rank(body: bytes, max_items: int) -> Request:
    """The body of POST /v1/rank: as recommend, but `items` is required and there is no `limit`."""
    fields = parse_object(body)
    if fields.get("limit") is not None:
        raise RequestError(
            "limit", fields["limit"], "no limit: every item of `items` comes back", next_step="drop limit"
        )
    request = build(fields, max_items)
    if not request.items:
        raise RequestError("items", fields.get("items"), f"a list of 1 to {max_items} item ids")
    return request


def parse_page(body: bytes, max_items: int, max_surfaces: int) -> tuple[Request, ...]:
    """The body of POST /v1/page, a Request per list in their order.

    {"surfaces": [{"surface": "pdp_fbt", "items": ["a"], "limit": 4}, ...]} and beside it what all lists
    share: the fields of recommend but those three.
    """
    fields = parse_object(body)
    lists = fields.pop("surfaces", None)
    shared = [name for name in FIELDS if name not in PER_LIST]
    _known(fields, ("surfaces", *shared))
    if not isinstance(lists, list) or not 1 <= len(lists) <= max_surfaces:
        found = f"{len(lists)} surfaces" if isinstance(lists, list) else lists
        raise RequestError("surfaces", found, f"a list of 1 to {max_surfaces} surfaces")
    page = build({**fields, "surface": SURFACES[0]}, max_items)
    return tuple(_listed(page, f"surfaces[{at}]", one, max_items) for at, one in enumerate(lists))


def _listed(page: Request, where: str, one: Any, max_items: int) -> Request:
    if not isinstance(one, dict):
        raise RequestError(where, one, f"an object with {', '.join(PER_LIST)}")
    _known(one, PER_LIST, f"{where}.")
    try:
        own = build(one, max_items)
    except RequestError as error:
        told = f"{where}.{error.field}"
        raise RequestError(told, error.value, error.allowed, next_step=f"change {told}") from None
    return replace(page, **{name: getattr(own, name) for name in PER_LIST})


def _known(given: Mapping[str, Any], allowed: Iterable[str], where: str = "") -> None:
    for name in given:
        if name not in allowed:
            raise RequestError(
                where + name, given[name], f"the fields {', '.join(allowed)}", next_step="drop it"
            )


def parse_query(pairs: Iterable[tuple[str, str]], max_items: int) -> Request:
    """The query string of GET /v1/recommend: lists by repetition, the context's fields side by side.

    >>> parse_query([("surface", "pdp_fbt"), ("items", "a"), ("items", "b"), ("limit", "3")], 10).items
    ('a', 'b')
    """
    allowed = (*(name for name in FIELDS if name != "context"), *CONTEXT_FIELDS)
    fields: dict[str, Any] = {}
    context: dict[str, Any] = {}
    for name, text in pairs:
        if name not in allowed:
            raise RequestError(name, text, f"the parameters {', '.join(allowed)}", next_step="drop it")
        if name in _LISTS:
            fields.setdefault(name, []).append(text)
            continue
        into = context if name in CONTEXT_FIELDS else fields
        if name in into:
            raise RequestError(name, text, "one value", next_step="send it once")
        into[name] = text.split(",") if name == "fields" else _from_text(name, text)
    return build({**fields, "context": context}, max_items)


def query_pairs(query: bytes) -> list[tuple[str, str]]:
    """The pairs of a query string. What is not UTF-8 is refused: `caf%E9` and `caf%E8` are two shoppers.

    >>> query_pairs(b"surface=pdp_fbt&items=a+b&items=caf%C3%A9")
    [('surface', 'pdp_fbt'), ('items', 'a b'), ('items', 'café')]
    """
    if query.count(b"&") >= MAX_PAIRS:
        allowed = f"at most {MAX_PAIRS} parameters"
        raise RequestError("query string", "more", allowed, next_step="send the lists in a POST")
    pairs = []
    for part in query.split(b"&") if query else ():
        raw = [unquote_to_bytes(text.replace(b"+", b" ")) for text in part.partition(b"=")[::2]]
        try:
            name, value = (text.decode() for text in raw)
        except UnicodeDecodeError:
            named = raw[0].decode(errors="replace")
            allowed = "UTF-8, each byte of another character as %XX"
            raise RequestError(named, raw[1], allowed, next_step="encode the text as UTF-8") from None
        pairs.append((name, value))
    return pairs


def _from_text(name: str, text: str) -> Any:
    if name == "limit":
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
    if name == "debug":
        return {"true": True, "1": True, "false": False, "0": False}.get(text, text)
    if name == "as_of" and text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    return text


def build(fields: Mapping[str, Any], max_items: int) -> Request:
    """A Request of checked fields; raises RequestError (422) naming the first that is wrong."""
    _known(fields, FIELDS)
    surface = fields.get("surface")
    if surface not in SURFACES:  # a tuple: an unhashable value is simply not in it
        raise RequestError("surface", surface, f"one of {', '.join(SURFACES)}")
    limit = fields.get("limit")
    if limit is not None and (type(limit) is not int or not 1 <= limit <= MAX_LIMIT):
        raise RequestError("limit", limit, f"a whole number from 1 to {MAX_LIMIT}")
    debug = fields.get("debug")
    if debug is not None and type(debug) is not bool:
        raise RequestError("debug", debug, "true or false")
    return Request(
        surface=surface,
        user_id=_id("user_id", fields.get("user_id")),
        session_id=_id("session_id", fields.get("session_id")),
        user_proof=_id("user_proof", fields.get("user_proof")),
        items=_ids("items", fields.get("items"), max_items),
        cart=_ids("cart", fields.get("cart"), max_items),
        exclude=_ids("exclude", fields.get("exclude"), max_items),
        context=_context(fields.get("context")),
        limit=12 if limit is None else limit,
        debug=bool(debug),
        as_of=parse_instant("as_of", fields.get("as_of")),
        fields=_shown(fields.get("fields")),
    )


def _shown(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or any(name not in SHOWN for name in value) or len(value) > len(SHOWN):
        raise RequestError("fields", value, f"a list of {', '.join(SHOWN)}")
    return tuple(dict.fromkeys(value))


def _id(name: str, value: Any) -> str | None:
    if value is not None:
        require_id(name, value)
    return value


def require_id(name: str, value: Any) -> None:
    """RequestError unless `value` is an id."""
    if not is_id(value):
        raise RequestError(name, value, _ID)


def _ids(name: str, value: Any, max_items: int) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > max_items:
        found = f"{len(value)} items" if isinstance(value, list) else value
        raise RequestError(name, found, f"a list of at most {max_items} item ids")
    for at, item in enumerate(value):
        require_id(f"{name}[{at}]", item)
    return tuple(value)


def _context(value: Any) -> Context:
    if value is None:
        return Context()
    if not isinstance(value, dict):
        raise RequestError("context", value, f"an object with {', '.join(CONTEXT_FIELDS)}")
    for name, text in value.items():
        if name not in CONTEXT_FIELDS:
            raise RequestError(f"context.{name}", text, f"the fields {', '.join(CONTEXT_FIELDS)}")
        _id(f"context.{name}", text)
    return Context(**value)


def parse_instant(name: str, value: Any) -> int | None:
    """Microseconds since 1970 from an int of them or from ISO 8601 text with a time zone.

    The years are those of the text, wherever its zone is: what is of another year by UTC is set to the edge.

    >>> parse_instant("as_of", "2016-10-17T02:00:00+02:00")
    1476662400000000
    """
    if value is None:
        return None
    us = value
    if isinstance(value, str) and len(value) <= 40:
        try:
            moment = datetime.fromisoformat(value)
            inside = moment.tzinfo and FIRST_YEAR <= moment.year < LAST_YEAR
            us = min(max(micros(moment), FIRST_US), LAST_US - 1) if inside else None
        except (ValueError, OverflowError):
            us = None
    if type(us) is not int or not FIRST_US <= us < LAST_US:
        raise RequestError(name, value, _INSTANT)
    return us
