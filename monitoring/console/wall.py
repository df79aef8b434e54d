"""Before every page: who asks, and whether a form is our own; and the headers of every answer."""

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from monitoring.console.access import Keys
from monitoring.pages.desk import Person

COOKIE, DOOR = "endcap_console", "endcap_console_door"
MAX_LOGIN_BYTES, MAX_FORM_BYTES, MAX_FIELDS = 4096, 4 << 20, 50
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer a browser says "Origin: null" of our own forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Refused(Exception):
    """`status` and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Wall:
    """Knows people by their tokens and sessions, and their forms."""

    def __init__(self, keys: Keys, session_s: int) -> None:
        self._keys, self._session_s = keys, session_s

    def person(self, request: Request) -> Person:
        """Who asks. Raises Refused, 401."""
        if header := request.headers.get("authorization", ""):
            scheme, _, token = header.partition(" ")
            role = self._keys.role_of(token) if scheme.lower() == "bearer" else None
            found = Person(role) if role else None
        else:
            found = self._keys.person(request.cookies.get(COOKIE, ""))
        if found is None:
            raise Refused(401, "Authorization: Bearer <token> is missing or wrong")
        return found

    def form_token(self, request: Request) -> str:
        """For the forms of a page that is answered to this request."""
        return self._keys.form_of(request.cookies.get(COOKIE, ""))

    async def form(self, request: Request) -> dict[str, str]:
        """The fields of a form that is our own; of a program with a token, of any. Raises Refused."""
        from_elsewhere(request)
        fields = await fields_of(request, MAX_FORM_BYTES)
        given, wanted = fields.pop("csrf", ""), self.form_token(request)
        if "authorization" not in request.headers and not hmac.compare_digest(
            given.encode(), wanted.encode()
        ):
            raise Refused(
                403, "csrf: the form is not of this session; allowed: the page's own. Load it again."
            )
        return fields

    def door(self, request: Request) -> tuple[str, str]:
        """(cookie, form token) for the sign-in, where there is no session yet."""
        cookie = request.cookies.get(DOOR) or self._keys.begin_door()
        return cookie, self._keys.form_of(cookie)

    async def sign_in(self, request: Request) -> Response | None:
        """The way to the pages with the cookie of a session; None for a wrong token. Raises Refused."""
        from_elsewhere(request)
        fields = await fields_of(request, MAX_LOGIN_BYTES)
        door = request.cookies.get(DOOR, "")
        if not door or not hmac.compare_digest(
            fields.get("csrf", "").encode(), self._keys.form_of(door).encode()
        ):
            raise Refused(403, "csrf: the form is none of ours, or cookies are off. Load /login again.")
        role = self._keys.role_of(fields.get("token", ""))
        if role is None:
            return None
        answer = RedirectResponse("/", 303)
        session = self._keys.begin(role, fields.get("name", ""))
        self.set_cookie(request, answer, COOKIE, session, self._session_s)
        answer.delete_cookie(DOOR, httponly=True, samesite="strict")
        return answer

    @staticmethod
    def set_cookie(request: Request, answer: Response, name: str, value: str, seconds: int) -> None:
        """One of this site alone, invisible to scripts. Links come with it, also those of a report, which has
        an origin of its own; forms of others do not, and have no token either.
        """
        secure = request.url.scheme == "https"
        answer.set_cookie(name, value, seconds, httponly=True, samesite="lax", secure=secure)


def from_elsewhere(request: Request) -> None:
    """Raises Refused for what another site's page sends, as far as the browser tells."""
    origin, host = request.headers.get("origin"), request.headers.get("host", "")
    site = request.headers.get("sec-fetch-site", "same-origin")
    if (origin is not None and urlsplit(origin).netloc != host) or site not in ("same-origin", "none"):
        raise Refused(403, f"Origin: a form of another site; allowed: those of {host}")


async def fields_of(request: Request, most: int) -> dict[str, str]:
    """Name -> its last value. Raises Refused for a body that is too large, or none of a form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise Refused(413, f"body: more than {most} bytes; allowed: at most so many")
    try:
        found: Mapping[str, list[str]] = parse_qs(
            body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise Refused(400, f"body: {error}; allowed: fields of a form, at most {MAX_FIELDS}, UTF-8") from None
    return {name: values[-1] for name, values in found.items()}
