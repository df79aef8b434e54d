"""Who may look at the console: whoever has its token, as a bearer header or as the cookie of /login."""

import hmac
import os
import secrets
from pathlib import Path
from urllib.parse import parse_qs

from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp

TOKEN = "ENDCAP_CONSOLE_TOKEN"
COOKIE = "endcap_console"
OPEN_PATHS = ("/login", "/style.css")
MAX_FORM_BYTES = 4096
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


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


class TokenWall(BaseHTTPMiddleware):
    """401 without the token, and the headers of every answer."""

    def __init__(self, app: ASGIApp, token: str, templates: Jinja2Templates) -> None:
        super().__init__(app)
        self._token, self._templates = token.encode(), templates

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        may = request.url.path in OPEN_PATHS or self._may(request)
        answer = await call_next(request) if may else self._refusal(request)
        answer.headers.update(HEADERS)
        return answer

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
