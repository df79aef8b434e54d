"""What every page works with: the roles, who asks, the desk that it works at, its row in the table of pages.

A page is one function and one template. The function runs in a thread, and may wait for Redis:

    def gather(desk: Desk, asked: Asked) -> dict[str, Any]: ...

What it returns the template shows, with `person`, `csrf` (for forms) and `here` beside it; a Response is
answered as it is. Raises EndcapError for what people can put right: it is told on a page of its own.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from redis import Redis
from starlette.responses import Response

from monitoring.experiment.attribution import FeedbackParams
from serving.release.state import Act

T = TypeVar("T")
ROLES = ("viewer", "merchandiser", "release", "privacy", "admin")
VIEWER, MERCHANDISER, RELEASE, PRIVACY, ADMIN = ROLES
EVERYBODY = frozenset(ROLES)
MERCHANDISING = frozenset({MERCHANDISER, ADMIN})  # who changes rules
PERSONAL = frozenset({PRIVACY, ADMIN})  # who sees what is known of a person


@dataclass(frozen=True)
class ConsoleParams:
    """Section `console` of params.yaml."""

    audit_entries: int  # on a page of the audit
    session_s: int  # after a sign-in; then the form again
    looks: int  # of the guard, in the table; the picture shows all of the canary
    pictures: str  # the shop's address, which product pictures are fetched from


@dataclass(frozen=True)
class Person:
    """Who asks. `name` is what they said at the sign-in, for the audit; only the role is proven."""

    role: str
    name: str = ""

    @property
    def who(self) -> str:
        """For the audit.

        >>> Person("merchandiser", "ana").who, Person("admin").who
        ('ana (merchandiser)', 'console (admin)')
        """
        return f"{self.name or 'console'} ({self.role})"


@dataclass(frozen=True)
class Asked:
    """A request: who, and the parts of the path, the query and the form by name, the last of each."""

    person: Person
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)

    def act(self, why: str, now_us: int) -> Act:
        """For the audit."""
        return Act(self.person.who, why, now_us)


@dataclass
class Desk:
    """`data`: the project's data folder. `margin`: relative CTR drop that rolls a canary back."""

    redis: Redis
    data: Path
    params: ConsoleParams
    feedback: FeedbackParams
    margin: float
    _held: dict[Any, Any] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def once(self, kind: Callable[..., T], make: Callable[[], T]) -> T:
        """What `make` makes at the first call for `kind`, the same ever after: for what costs to begin."""
        with self._turn:
            if kind not in self._held:
                self._held[kind] = make()
            found: T = self._held[kind]
            return found


Gather = Callable[[Desk, Asked], Mapping[str, Any] | Response]


@dataclass(frozen=True)
class Page:
    """A row of the table: where it is, who may, what gathers, what shows; `title`: "" is not in the menu."""

    path: str
    title: str
    roles: frozenset[str]
    gather: Gather
    template: str = ""
    method: str = "GET"
