"""What a worker holds of the rules: one version, compiled for every catalogue, swapped whole.

A request takes its Steering once, so no answer mixes two versions. Rules are compiled in a thread,
before they or the items change: no request has to. What a worker holds is one tuple, replaced in turns.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from redis import Redis

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.errors import UnavailableError
from feature_repo.online.changes import EMPTY
from serving.rules.compiled import Compiled, Touch
from serving.rules.document import NOTHING, Document
from serving.rules.published import Published, documents, read
from serving.stages.steering import UNSTEERED, Steering
from serving.types import Request

MEND = "`endcap rules publish FILE --why TEXT`; the rules that were loaded hold on"


class Book(NamedTuple):
    """A document with its name and what was compiled of it, per catalogue."""

    version: int
    document: Document
    compiled: tuple[Compiled, ...] = ()

    def ready(self, matrices: Sequence[ItemMatrix], now: int) -> "Book":
        """Compiled for `matrices` alone; what fits already is kept."""
        if not self.document.rules:
            return self
        found = []
        for matrix in matrices:
            fitting = next((one for one in self.compiled if one.fits(matrix, now)), None)
            if fitting is None:
                fitting = Compiled(self.document, matrix, now, self.version)
                fitting.warm(next((one for one in self.compiled if one.of(matrix)), None), now)
            found.append(fitting)
        return self._replace(compiled=tuple(found))

    def of(self, matrix: ItemMatrix, now: int) -> Compiled | None:
        """What was compiled for these items: of this very snapshot, else of an earlier one."""
        own = [one for one in self.compiled if one.of(matrix)]
        return next((one for one in own if one.fits(matrix, now)), own[-1] if own else None)


class Held(NamedTuple):
    """The rules that hold, what is only tried out beside them, and the record that both are of."""

    seen: Published = Published()
    book: Book = Book(0, NOTHING)
    tried: Book = Book(0, NOTHING)
    sets: Mapping[str, Document] = {}
    above: Mapping[str, Book] = {}  # of each set: it, and below it the rules that hold

    def following(self, found: Published) -> "Held":
        """What is held once Redis says `found`. Raises RulesError."""
        seen, book, tried = self[:3]
        if found != seen:
            document, shadow = documents(found)
            if (found.version, found.document) != (seen.version, seen.document):
                book = Book(found.version, document)
            if found.shadow != seen.shadow:
                tried = Book(found.version, shadow or NOTHING)
        return Held(found, book, tried).with_sets(self.sets, self)

    def with_sets(self, sets: Mapping[str, Document], before: "Held") -> "Held":
        """With `sets` of rules beside those that hold; what `before` has of them stays."""
        if sets is before.sets and self.book.document is before.book.document:
            return self._replace(sets=sets, above=before.above)
        below, version = self.book.document.rules, self.book.version
        above = {
            name: Book(version, Document.model_construct(rules=(*more.rules, *below)))
            for name, more in sets.items()
        }
        return self._replace(sets=sets, above=above)

    def ready(self, matrices: Sequence[ItemMatrix], now: int) -> "Held":
        book, tried = (one.ready(matrices, now) for one in (self.book, self.tried))
        above = {name: one.ready(matrices, now) for name, one in self.above.items()}
        return self._replace(book=book, tried=tried, above=above)


class Rulebook:
    """Follows `endcap:rules`; `steering` answers for a request, `tried` for what is only tried out.

    `matrices`: the items that requests may be answered from now. Who is about to put others in their place
    does so within `ready`.
    """

    def __init__(
        self,
        redis: Redis,
        matrices: Callable[[], Sequence[ItemMatrix]],
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._redis, self._matrices, self._clock = redis, matrices, clock
        self._held = Held()
        self._turn = threading.Lock()  # of those who compile; requests read without

    async def poll(self) -> None:
        """Look once, compile, swap. Raises redis' errors, RulesError for a document of another program.

        UnavailableError where Redis has lost the rules: those that were loaded hold on.
        """
        await asyncio.to_thread(self._look)

    def _look(self) -> None:
        found = read(self._redis)
        if found.version == 0 and self._held.seen.version:
            raise UnavailableError(EMPTY, next_step=MEND)
        with self._turn:
            self._held = self._held.following(found).ready(self._matrices(), self._clock())

    def keep(self, sets: Mapping[str, Document]) -> None:
        """Compile `sets` of rules that `steering` may be asked for by name; called in a thread."""
        with self._turn:
            self._held = self._held.with_sets(sets, self._held).ready(self._matrices(), self._clock())

    @contextmanager
    def ready(self, matrix: ItemMatrix) -> Iterator[None]:
        """Compile for a snapshot with other items, which is put in place inside; called in a thread.

        Other prices and stock of the same items are compiled by the next look.
        """
        with self._turn:
            if self._held.book.of(matrix, 0) is None:
                self._held = self._held.ready([*self._matrices(), matrix], self._clock())
            yield

    @property
    def shadow_name(self) -> str:
        """Of what is tried out beside the lists, "" for nothing."""
        return self._held.seen.shadow_name

    def steering(
        self, request: Request, matrix: ItemMatrix, now: int, rule_set: str | None = None
    ) -> Steering:
        """What the rules that hold ask of the list for `request` at `now` (us), those of a set first."""
        held = self._held
        book = held.book if rule_set is None else held.above.get(rule_set, held.book)
        if not book.document.rules:
            return Steering(book.version) if book.version else UNSTEERED
        compiled = book.of(matrix, now)
        if compiled is None:  # items that nobody got ready: better late than without rules
            compiled = Compiled(book.document, matrix, now, book.version)
        return compiled.steering(request, now)

    def touching(self, request: Request, matrix: ItemMatrix, now: int) -> Callable[[int], list[Touch]]:
        """Of what `steering` answers by at this moment: row -> the rules that concern it."""
        compiled = self._held.book.of(matrix, now)
        return partial(compiled.touching, request, now) if compiled else lambda row: []

    def tried(self, request: Request, matrix: ItemMatrix, now: int) -> Steering | None:
        """The same of what is tried out; None where nothing is, or not for these items yet."""
        compiled = self._held.tried.of(matrix, now) if self._held.seen.shadow else None
        return compiled.steering(request, now) if compiled else None
