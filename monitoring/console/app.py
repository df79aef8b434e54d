"""The console: the admin plane, off the storefront's port, behind a token.

/          who serves whom, and what each arm gets       /rollout   the guard's looks and the audit log
/reports   what the stages and watches wrote             /login     a session for the token
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from redis import Redis, RedisError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from feature_repo.clock import instant
from monitoring.console import interval
from monitoring.console.access import TokenWall, login
from monitoring.console.figures import Arms, reports, rollout_looks
from monitoring.experiment.attribution import FeedbackParams
from serving.release import state

HERE = Path(__file__).parent
NO_SCRIPTS = {"Content-Security-Policy": "default-src 'self'; form-action 'self'"}


@dataclass(frozen=True)
class ConsoleParams:
    """Section `console` of params.yaml."""

    audit_entries: int  # shown on the rollout page
    session_s: int  # after a login; then the form again
    looks: int  # of the guard, in the table; the picture shows all of the step


def build_app(
    redis: Redis, data: Path, token: str, params: ConsoleParams, feedback: FeedbackParams, margin: float
) -> Starlette:
    """The ASGI app. `data`: the project's data folder; `margin`: relative CTR drop that rolls back."""
    pages = Jinja2Templates(
        env=jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined
        )
    )
    pages.env.filters.update(when=when, share=share)
    arms = Arms(redis, feedback)

    def overview() -> dict[str, Any]:
        rollout = state.read(redis)
        return {"rollout": rollout, "arms": arms.rows(rollout) if rollout else []}

    def rollout() -> dict[str, Any]:
        found = state.read(redis)
        looks = rollout_looks(redis, found) if found else []
        return {
            "rollout": found,
            "looks": looks[: -params.looks - 1 : -1],
            "picture": interval.draw(looks, margin),
            "audit": state.read_audit(redis, params.audit_entries),
        }

    def page(name: str, gather: Callable[[], dict[str, Any]]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            try:
                found = await run_in_threadpool(gather)
            except RedisError as error:
                return pages.TemplateResponse(request, "unavailable.html", {"error": error}, 503, NO_SCRIPTS)
            return pages.TemplateResponse(request, name, found, headers=NO_SCRIPTS)

        return endpoint

    def report(request: Request) -> Response:
        """One of the listed files, and no other. Scripts in it cannot act as the console."""
        path = request.path_params["path"]
        if path not in {report.path for report in reports(data)}:
            raise HTTPException(404, "no such report; /reports lists them")
        return FileResponse(data / path, headers={"Content-Security-Policy": "sandbox allow-scripts"})

    shown: Any = {"token": token, "session_s": params.session_s, "templates": pages}
    return Starlette(
        routes=[
            Route("/", page("overview.html", overview)),
            Route("/rollout", page("rollout.html", rollout)),
            Route("/reports", page("reports.html", lambda: {"reports": reports(data)})),
            Route("/reports/{path:path}", report),
            Route("/login", partial(login, **shown), methods=["GET", "POST"]),
            Route("/style.css", lambda _: FileResponse(HERE / "style.css")),
        ],
        middleware=[Middleware(TokenWall, **shown)],
    )


def when(us: int | datetime) -> str:
    """An instant for people, UTC, from microseconds or a datetime.

    >>> when(1_767_225_600_000_000)
    '2026-01-01 00:00:00'
    """
    moment = us if isinstance(us, datetime) else instant(us)
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def share(value: float | None, digits: int = 2) -> str:
    """A rate in percent; a dash where there is none yet.

    >>> share(0.0234), share(None)
    ('2.34 %', '-')
    """
    return "-" if value is None else f"{100 * value:.{digits}f} %"
