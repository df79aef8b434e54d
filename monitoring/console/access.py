"""Who may look at the console: whoever has its token, as a bearer header or as the cookie of /login."""

import hmac
import os
import secrets
from pathlib import Path
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN = "ENDCAP_CONSOLE_TOKEN"
COOKIE = "endcap_console"
OPEN_PATHS = ("/login", "/style.css")
MAX_FORM_BYTES = 4096
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


def console_token(folder: Path) -> str:
    """$ENDCAP_CONSOLE_TOKEN, else the token in <folder>/console.token, made at the first start, mode 0600."""
    given = os.environ.get(TOKEN)
    if given:
        return given
    file = folder / "console.token"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:  # noqa: PTH123
            new.write(secrets.token_urlsafe(32))
    except FileExistsError:
        pass
    return file.read_text().strip()


class TokenWall:
    """ASGI middleware: 401 without the token, and the headers of every answer."""

    def __init__(self, app: ASGIApp, token: str, templates: Jinja2Templates) -> None:
        self._app, self._token, self._templates = app, token.encode(), templates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        app = self._app
        if request.url.path not in OPEN_PATHS and not self._may(request):
            app = self._refusal(request)

        async def headed(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]  # type: ignore[misc]
            await send(message)

        await app(scope, receive, headed)  # type: ignore[arg-type]

    def _may(self, request: Request) -> bool:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else request.cookies.get(COOKIE, "")
        return hmac.compare_digest(given.encode(), self._token)

    def _refusal(self, request: Request) -> Response:
        challenge = {"WWW-Authenticate": "Bearer"}
        if "text/html" in request.headers.get("accept", ""):
            return self._templates.TemplateResponse(request, "login.html", {}, 401, challenge)
        return Response("Authorization: Bearer <token> is missing or wrong\n", 401, challenge, "text/plain")


async def login(request: Request, token: str, templates: Jinja2Templates) -> Response:
    """GET the form; POST `token` turns it into a cookie of this site, invisible to scripts."""
    if request.method == "GET":
        return templates.TemplateResponse(request, "login.html", {})
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return Response("the form is too large\n", 413, media_type="text/plain")
    given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
    if not hmac.compare_digest(given.strip().encode(), token.encode()):
        return templates.TemplateResponse(request, "login.html", {"wrong": True}, 401)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
    return answer
