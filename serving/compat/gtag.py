"""Google's web tag (gtag.js, Tag Manager): what a browser sends to /g/collect, as that script writes it.

?v=2&tid=G-1&cid=123.456&sid=7&_p=99&_s=3&gcs=G111&en=view_item&epn.value=9.99&pr1=idSKU-1~nmMug~pr9.99~qt1

Several events at once are a line each in the body, and what they share stands in the address. Google
describes none of it; an event carries no time and no id.
"""

import re
from typing import Any

from serving.errors import RequestError
from serving.http.requests import MAX_PAIRS, query_pairs
from serving.payloads import measurement
from serving.payloads.payload import System, fields, text
from serving.payloads.terms import Terms

MAX_BYTES, MAX_HITS = 65_536, 25  # of a body; the tag stops at 16 KiB and 20
LINE = "line"  # of the body; no parameter of theirs
_PRODUCT = re.compile(r"pr([1-9]\d{0,2})", re.ASCII)
_PART = re.compile(r"[^~]+(?:~~[^~]*)*")  # a tilde in a value stands there twice
_KEYS = dict(id="item_id", nm="item_name", pr="price", qt="quantity", lp="index")
_KEYS |= {"li": "item_list_id", "ln": "item_list_name"}


def hits(query: bytes, body: bytes) -> list[dict[str, str]]:
    """The parameters of each event; raises RequestError 413 for too much, 422 for what is not UTF-8."""
    lines = [line for part in body.split(b"\n") if (line := part.strip())]
    if len(body) > MAX_BYTES or len(lines) > MAX_HITS or body.count(b"&") > MAX_PAIRS:
        allowed = f"at most {MAX_HITS} lines, {MAX_PAIRS} parameters and {MAX_BYTES} bytes"
        raise RequestError("body", "more", allowed, status=413, next_step="send less at once")
    shared = dict(query_pairs(query))
    told = map(query_pairs, lines or [b""])
    return [{**shared, **dict(pairs), LINE: str(n)} for n, pairs in enumerate(told)]


def translate(hit: Any, terms: Terms) -> list[dict[str, Any]]:
    """As the same event of the Measurement Protocol.

    Page load (`_p`), count of what it sent (`_s`) and line tell an event from its repeat. Whoever denied
    storage of analytics (`gcs`: G1, then 0 or 1 for ads' storage and for analytics') or personalized ads
    (`npa`), refused; no cookies for ads, alone, says nothing of a shop's own shelves.
    """
    told = fields(hit)
    params = {n.partition(".")[2]: v for n, v in told.items() if n.startswith(("ep.", "epn."))}
    numbered = {int(found[1]): v for n, v in told.items() if (found := _PRODUCT.fullmatch(n))}
    refused = text(told.get("npa")) == "1" or (text(told.get("gcs")) or "")[3:4] == "0"
    return measurement.translate(
        {
            "client_id": told.get("cid"),
            "user_id": told.get("uid"),
            "consent": {"ad_personalization": "DENIED"} if refused else None,
            "event": {
                "name": told.get("en"),
                "params": {
                    **params,
                    "session_id": told.get("sid"),
                    "medium": told.get("cm"),
                    "items": [_product(numbered[n]) for n in sorted(numbered)],
                    "hit": [told.get(name) for name in ("_p", "_s", LINE)],
                },
            },
        },
        terms,
    )


def _product(told: Any) -> dict[str, str]:
    """An item as the Measurement Protocol has it, of two letters and a value each, between tildes.

    >>> _product("idSKU-1~nmA ~~ B~brX~pr9.99")
    {'item_id': 'SKU-1', 'item_name': 'A ~ B', 'price': '9.99'}
    """
    parts = _PART.findall(told) if isinstance(told, str) else ()
    return {_KEYS[part[:2]]: part[2:].replace("~~", "~") for part in parts if part[:2] in _KEYS}


def events(body: Any) -> list[Any]:
    """Of `hits`, which has read them already."""
    return body if isinstance(body, list) else []


HITS = System(events, translate)
