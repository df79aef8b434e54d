"""The console: the admin plane, off the storefront's port. Its pages are the rows of sitemap.PAGES.

Every request: who asks (401), whether the role may (403), whether a form is of this session (403), and only
then the page. Pages are made in threads. /login, /style.css and /console.js are open to all.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from redis import RedisError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feature_repo.errors import EndcapError
from monitoring import erasing, merchandising, pages
from monitoring.console.access import Keys
from monitoring.console.sitemap import PAGES
from monitoring.console.wall import COOKIE, DOOR, HEADERS, Refused, Wall
from monitoring.pages import phrases
from monitoring.pages.desk import Asked, Desk, Page, Person

HERE = Path(__file__).parent
OPEN_FILES = ("style.css", "console.js", "draft.js")
DOOR_S = 3600


def build_app(desk: Desk, tokens: Mapping[str, str], table: Sequence[Page] = PAGES) -> Starlette:
    """The ASGI app. `tokens`: role -> token."""
    shell = Shell(desk, tokens, table)
    return Starlette(
        routes=[
            *(Route(page.path, shell.endpoint(page), methods=[page.method]) for page in table),
            Route("/login", shell.login, methods=["GET", "POST"]),
            Route("/logout", shell.logout, methods=["POST"]),
            *(Route(f"/{name}", file_of(HERE / name), methods=["GET"]) for name in OPEN_FILES),
        ],
        middleware=[Middleware(Headed)],
        exception_handlers={Refused: shell.refused, HTTPException: shell.no_page},
    )


class Shell:
    """Lets the pages of a table be asked for by those who may."""

    def __init__(self, desk: Desk, tokens: Mapping[str, str], table: Sequence[Page]) -> None:
        self._desk, self._table = desk, table
        self._wall = Wall(Keys(tokens, desk.params.session_s), desk.params.session_s)
        folders = [HERE, *(Path(room.__path__[0]) for room in (pages, merchandising, erasing))]
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folders),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(phrases.FILTERS)
        self._pages = Jinja2Templates(env=environment)

    def endpoint(self, page: Page) -> Any:
        """Answers a request for `page`."""

        async def answer(request: Request) -> Response:
            person = self._wall.person(request)
            if person.role not in page.roles:
                may = ", ".join(sorted(page.roles))
                raise Refused(
                    403, f"role: {person.role} may not {request.method} {page.path}; allowed: {may}"
                )
            form = await self._wall.form(request) if page.method == "POST" else {}
            asked = Asked(person, dict(request.path_params), dict(request.query_params), form)
            try:
                found = await run_in_threadpool(page.gather, self._desk, asked)
            except RedisError as error:
                return self._show(request, "unavailable.html", {"error": str(error)}, person, 503)
            except EndcapError as error:
                return self._show(request, "wrong.html", {"error": str(error)}, person, 409)
            return found if isinstance(found, Response) else self._show(request, page.template, found, person)

        return answer

    async def login(self, request: Request) -> Response:
        """GET the form; POST `token`, and `name` for the audit, begins a session."""
        if request.method == "GET":
            return self._form(request)
        return await self._wall.sign_in(request) or self._form(request, 401, wrong=True)

    async def logout(self, request: Request) -> Response:
        """End the session of this browser."""
        self._wall.person(request)
        await self._wall.form(request)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    async def refused(self, request: Request, error: Exception) -> Response:
        """The sentence: for a browser on a page, which is the form where nobody has signed in."""
        assert isinstance(error, Refused)
        if error.status == 401 and "text/html" in request.headers.get("accept", ""):
            return self._form(request, 401)
        if "text/html" in request.headers.get("accept", ""):
            return self._plain(request, str(error), error.status)
        challenge = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
        return Response(f"{error}\n", error.status, challenge, "text/plain")

    async def no_page(self, request: Request, error: Exception) -> Response:
        """What is nowhere is told to those who have signed in."""
        assert isinstance(error, HTTPException)
        try:
            self._wall.person(request)
        except Refused as refused:
            return await self.refused(request, refused)
        return await self.refused(request, Refused(error.status_code, str(error.detail)))

    def _plain(self, request: Request, sentence: str, status: int) -> Response:
        try:
            person = self._wall.person(request)
        except Refused:
            person = None
        return self._show(request, "refused.html", {"error": sentence, "status": status}, person, status)

    def _form(self, request: Request, status: int = 200, wrong: bool = False) -> Response:
        cookie, token = self._wall.door(request)
        told = {"csrf": token, "wrong": wrong, "person": None, "menu": [], "here": ""}
        challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        answer = self._pages.TemplateResponse(request, "login.html", told, status, challenge)
        self._wall.set_cookie(request, answer, DOOR, cookie, DOOR_S)
        return answer

    def _show(
        self,
        request: Request,
        template: str,
        found: Mapping[str, Any],
        person: Person | None,
        status: int = 200,
    ) -> Response:
        menu = [
            (page.path, page.title)
            for page in self._table
            if person and page.title and person.role in page.roles
        ]
        path = request.url.path
        here = max(
            (p for p, _ in menu if path == p or path.startswith(f"{p.rstrip('/')}/")), key=len, default=""
        )
        shell = {"person": person, "menu": menu, "here": here, "csrf": self._wall.form_token(request)}
        return self._pages.TemplateResponse(request, template, {**shell, **found}, status)


class Headed:
    """Puts the headers of the house on every answer; a page may have a stricter policy of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                held = {name.lower() for name, _ in message["headers"]}
                more = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in held]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await self._app(scope, receive, headed)


def file_of(path: Path) -> Any:
    """Answers with one file."""

    def answer(_: Request) -> Response:
        return FileResponse(path)

    return answer
