"""Files for browsers: endcap.js and its types, and the page at / that tries the routes out.

All of them are small, held in memory, and never loaded from elsewhere.
"""

import hashlib
import re
from pathlib import Path

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

HERE = Path(__file__).parent
KEPT_S = 300  # without asking again; then the ETag says whether anything changed
NO_STRANGERS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": NO_STRANGERS,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "cross-origin",  # endcap.js is for the pages of others
    "Cache-Control": f"public, max-age={KEPT_S}",
}
JAVASCRIPT, TYPES = "text/javascript; charset=utf-8", "text/plain; charset=utf-8"


def lean(source: str) -> str:
    """JavaScript without its comment lines, empty lines and indentation.

    >>> lean("// why\\n  f();\\n\\n  // how\\n  g();\\n")
    'f();\\ng();\\n'
    """
    return re.sub(r"^\s*(//.*)?\n|^[ \t]+", "", source, flags=re.M)


class Asset:
    """A file, its type and its ETag; answers 304 to whoever holds it already."""

    def __init__(self, name: str, kind: str) -> None:
        text = (HERE / name).read_text()
        self.body = (lean(text) if kind == JAVASCRIPT else text).encode()
        self.headers = {"ETag": etag(self.body), "Content-Type": kind, **HEADERS}

    async def __call__(self, http: HttpRequest) -> Response:
        return cached(http, self.body, self.headers)


def etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def cached(http: HttpRequest, body: bytes, headers: dict[str, str]) -> Response:
    """`body`, or 304 where If-None-Match names the ETag in `headers`."""
    held = {one.strip().removeprefix("W/") for one in http.headers.get("if-none-match", "").split(",")}
    if held & {headers["ETag"], "*"}:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers)


ASSETS = {
    "/": Asset("routes.html", "text/html; charset=utf-8"),
    "/routes.css": Asset("routes.css", "text/css; charset=utf-8"),
    "/routes.js": Asset("routes.js", JAVASCRIPT),
    "/endcap.js": Asset("endcap.js", JAVASCRIPT),
    "/endcap.d.ts": Asset("endcap.d.ts", TYPES),
}
