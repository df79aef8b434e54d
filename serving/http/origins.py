"""Which pages of other origins may read what is answered here (CORS): those that are named, exactly.

An origin that is not named gets no header, whatever it asks; its browser then keeps the answer from it. That
binds browsers alone: it is no protection of the service. No cookie is used here, so none is allowed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feature_repo.errors import ParamsError
from feature_repo.ports import HOST, stack_params
from serving.errors import RequestError

_ORIGIN = re.compile(r"https?://([a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?\Z")
_FORM = "a scheme, a host and a port that is not the scheme's own, as https://shop.example, in lower case"
_DEFAULT_PORTS = ("http://", ":80"), ("https://", ":443")
REQUEST_HEADERS = "content-type, authorization"
TOLD = "endcap-rejected, retry-after"  # headers of an answer that a page's script may read


@dataclass(frozen=True)
class Cors:
    """Section `cors` of params.yaml. Raises ParamsError for what no browser sends as an origin."""

    origins: tuple[str, ...]
    demo_shop: bool  # the storefront of `endcap storefront` besides, on the loopback interface
    max_age_s: int  # how long a browser remembers that it may ask

    def __post_init__(self) -> None:
        for origin in self.origins:
            own = any(origin.startswith(scheme) and origin.endswith(port) for scheme, port in _DEFAULT_PORTS)
            if own or not _ORIGIN.match(origin):
                raise ParamsError(f"cors.origins: {origin!r} is not an origin; allowed: {_FORM}")

    def allowed(self) -> frozenset[str]:
        """Every origin that is allowed."""
        port = stack_params().storefront_port
        own = [f"http://{name}:{port}" for name in (HOST, "localhost")] if self.demo_shop else []
        return frozenset((*self.origins, *own))


class Origins:
    """ASGI: answers OPTIONS, and says on every answer whether the asking page may read it.

    `methods`: path -> its methods, as "GET, POST". Caches keep the answers of two origins apart (Vary).
    """

    def __init__(self, app: ASGIApp, cors: Cors, methods: Mapping[str, str]) -> None:
        self._app, self._methods = app, methods
        self._allowed = frozenset(origin.encode() for origin in cors.allowed())
        self._max_age = str(cors.max_age_s).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = dict(scope["headers"])
        origin = sent.get(b"origin")
        told = partial(_send, send, self._headers(origin))
        if scope["method"] == "OPTIONS" and (known := self._methods.get(scope["path"])):
            if origin is not None and b"access-control-request-method" in sent:
                await self._preflight(origin, known.encode(), told)
            else:
                await _answer(told, 204, [(b"allow", known.encode() + b", OPTIONS")])
        else:
            await self._app(scope, receive, told)

    def _headers(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        vary = (b"vary", b"Origin")
        if origin not in self._allowed:
            return [vary]
        assert origin is not None
        may_read = (b"access-control-expose-headers", TOLD.encode())
        return [vary, (b"access-control-allow-origin", origin), may_read]

    async def _preflight(self, origin: bytes, methods: bytes, told: Send) -> None:
        if origin not in self._allowed:
            error = RequestError(
                *("origin", origin.decode("latin-1"), "the origins of cors.origins in params.yaml"),
                status=403,
                next_step="name it there and start the service again",
            )
            json = (b"content-type", b"application/json")
            await _answer(told, error.status, [json], error.body())
            return
        granted = [
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", REQUEST_HEADERS.encode()),
            (b"access-control-max-age", self._max_age),
        ]
        await _answer(told, 204, granted)


async def _send(send: Send, more: list[tuple[bytes, bytes]], message: Message) -> None:
    if message["type"] == "http.response.start":
        message["headers"] = [*message.get("headers", ()), *more]
    await send(message)


async def _answer(told: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    length = [] if status == 204 else [(b"content-length", str(len(body)).encode())]
    await told({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await told({"type": "http.response.body", "body": body})
