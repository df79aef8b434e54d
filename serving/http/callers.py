"""What a request shows of its caller: a key, the page's origin, the address that it comes from."""

import base64
import binascii
import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from starlette.requests import Request as HttpRequest

from feature_repo.events import is_id
from feature_repo.ports import bearer
from serving.access.counting import Source
from serving.access.credentials import PARAMETER, Caller, Keys, Sent
from serving.access.tolls import Toll, TollGate
from serving.errors import RequestError
from serving.http.requests import query_pairs
from serving.types import Request

IN_ADDRESS = f"{PARAMETER}=".encode()
UNTOLD = 1 << 40  # bytes of a body whose length nobody told


def shown(http: HttpRequest) -> Sent:
    """A key as Authorization: Bearer, else as ?key=. Never raises but for an address that is not UTF-8."""
    key = bearer(http.headers.get("authorization", ""))
    query = http.scope["query_string"]
    in_address = dict(query_pairs(query)).get(PARAMETER, "") if IN_ADDRESS in query else ""
    return Sent(key, in_address, http.headers.get("origin"))


def shown_elsewhere(http: HttpRequest) -> Sent:
    """As `shown`, or where clients of other systems carry theirs: docs/compat.md has the list."""
    sent = shown(http)
    named = http.headers.get("x-api-key") or http.headers.get("x-algolia-api-key") or ""
    query = dict(query_pairs(http.scope["query_string"])) if b"=" in http.scope["query_string"] else {}
    in_address = query.get("api_secret") or query.get("x-algolia-api-key") or ""
    basic = _user(http.headers.get("authorization", ""))
    return sent._replace(key=sent.key or named or basic, in_address=sent.in_address or in_address)


def address(http: HttpRequest) -> str | None:
    """Of the client, None for one of this machine: that is a proxy, or a job of ours.

    Behind a proxy it is what that one says in X-Forwarded-For, from the addresses in FORWARDED_ALLOW_IPS.
    Of IPv6 it is the network of 64 bits: whoever is given one has all of its addresses.
    """
    client = http.scope.get("client")
    return None if client is None else _network(str(client[0]))


def caller_of(http: HttpRequest, keys: Keys) -> Caller:
    """Who asks; RequestError 401 or 403. A door of another system has found it out already."""
    return getattr(http.state, "caller", None) or keys.caller(shown(http))


def admitted(http: HttpRequest, keys: Keys, gate: TollGate, *requests: Request) -> Toll:
    """What these lists are charged to, once the caller may have them; RequestError 401 or 403."""
    caller = caller_of(http, keys)
    keys.require_own(caller, requests[0].user_id, requests[0].user_proof)
    for request in requests:
        for field in ("debug", "as_of"):
            if value := getattr(request, field):
                keys.require_secret(caller, field, value)
    shopper = requests[0].user_id or requests[0].session_id
    return gate.lists(caller, shopper, address(http), len(requests))


def require_manners(http: HttpRequest, keys: Keys, gate: TollGate) -> None:
    """RequestError 429, before a body is read, of an address that was refused too often, unless trusted."""
    told = http.headers.get("content-length", "0")
    size = int(told) if told.isascii() and told.isdigit() and len(told) <= 12 else UNTOLD
    try:
        gate.require_manners(address(http), UNTOLD if "transfer-encoding" in http.headers else size)
    except RequestError:
        if not caller_of(http, keys).trusted:
            raise


def source_of(
    http: HttpRequest,
    keys: Keys,
    gate: TollGate,
    raw: Sequence[Any],
    proof: str | None = None,
    dropped: int = 0,
) -> Source:
    """Where these events come from; what is wrong with one is not judged here.

    `proof`: that the shopper whom they name is the caller. `dropped`: how many more were told that are none
    of ours; reading them was work as well.
    """
    named = (one.get("session_id") for one in raw if isinstance(one, dict))
    visits = {visit for visit in named if is_id(visit)}
    shopper = visits.pop() if len(visits) == 1 else None
    caller = caller_of(http, keys)
    own = None if caller.trusted else address(http)
    toll = gate.events(caller, shopper, own, len(raw) + dropped)
    return Source(toll, own, lambda user: keys.owns(caller, user, proof))


_HERE = ("127.0.0.1", "::1", "testclient")


@lru_cache(4096)
def _network(host: str) -> str | None:
    """Who is behind an address; None for this machine's own."""
    if host in _HERE or ":" not in host:
        return None if host in _HERE else host
    try:
        found = ipaddress.IPv6Address(host)
    except ValueError:  # a proxy may say anything
        return host
    if found.ipv4_mapped is not None:
        return _network(str(found.ipv4_mapped))
    return None if found.is_loopback else str(ipaddress.IPv6Address(int(found) >> 64 << 64))


def _user(authorization: str) -> str:
    """The name of Basic: Segment and its like have the write key there."""
    scheme, _, packed = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(packed, validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError):
        return ""
