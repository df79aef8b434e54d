"""Past the layers that a request for a list has no use for: they cost as much as its ranker.

BentoML's context and router and Starlette's own routes, handlers of exceptions and wrappers are passed by.
What stays around every request: BentoML's timeout and tracing, the last net of Starlette for what nobody
caught, and who may read the answer (serving/http/origins.py). An endpoint here answers its errors itself.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]
OWN = "/v1/"


class Direct:
    """ASGI, around what BentoML serves: a path of OWN goes to `own` at once."""

    def __init__(self, app: ASGIApp, own: ASGIApp) -> None:
        self._app, self._own = app, own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        direct = scope["type"] == "http" and scope["path"].startswith(OWN)
        await (self._own if direct else self._app)(scope, receive, send)


class Shortcuts:
    """ASGI: who asks for one of `endpoints`, by (method, path), is answered by it; all else goes to `app`."""

    def __init__(self, app: ASGIApp, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        self._app, self._endpoints = app, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = (scope["method"], scope["path"]) if scope["type"] == "http" else ("", "")
        if (endpoint := self._endpoints.get(asked)) is None:
            await self._app(scope, receive, send)
            return
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
