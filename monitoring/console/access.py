"""Who may look at the console: whoever has its token, as a bearer header, or the session that it opened.

The cookie of a session is random and signed with a key made of the token; the signature holds its time. It
ends by itself, and with another token; a restart of the console does not end it; it does not tell the token.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from urllib.parse import parse_qs

from itsdangerous import BadSignature, TimestampSigner
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp

from feature_repo.files import secret
from feature_repo.ports import opens

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
    return secret(folder / "console.token")


def sessions(token: str) -> TimestampSigner:
    """Signs the cookies of those who have shown `token`."""
    return TimestampSigner(token, salt="endcap console session", digest_method=hashlib.sha256)


class TokenWall(BaseHTTPMiddleware):
    """401 without token or session, and the headers of every answer; a session ends after `session_s`."""

    def __init__(self, app: ASGIApp, token: str, session_s: int, templates: Jinja2Templates) -> None:
        super().__init__(app)
        self._token, self._session_s, self._templates = token, session_s, templates
        self._sessions = sessions(token)

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        may = request.url.path in OPEN_PATHS or self._may(request)
        answer = await call_next(request) if may else self._refusal(request)
        answer.headers.update(HEADERS)
        return answer

    def _may(self, request: Request) -> bool:
        if header := request.headers.get("authorization", ""):
            return opens(header, self._token)
        try:
            self._sessions.unsign(request.cookies.get(COOKIE, ""), max_age=self._session_s)
        except BadSignature:  # also one that has ended
            return False
        return True

    def _refusal(self, request: Request) -> Response:
        challenge = {"WWW-Authenticate": "Bearer"}
        if "text/html" in request.headers.get("accept", ""):
            return self._templates.TemplateResponse(request, "login.html", {}, 401, challenge)
        return Response("Authorization: Bearer <token> is missing or wrong\n", 401, challenge, "text/plain")


async def login(request: Request, token: str, session_s: int, templates: Jinja2Templates) -> Response:
    """GET the form; POST `token` begins a session: a cookie of this site, invisible to scripts."""
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
    cookie = sessions(token).sign(secrets.token_urlsafe(16)).decode()
    answer.set_cookie(COOKIE, cookie, session_s, httponly=True, samesite="strict")
    return answer
