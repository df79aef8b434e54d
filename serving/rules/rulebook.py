"""What a worker holds of the rules: one version, compiled for every catalogue, swapped whole.

A request takes its Steering once, so no answer mixes two versions. Compiling is done in a thread, before the
swap; a request compiles only where a catalogue has just got other rows. Only the event loop swaps.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
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
MOST = 8  # catalogues of which compiled rules are held


class Book(NamedTuple):
    """A document with its name and what was compiled of it, per catalogue."""

    version: int
    document: Document
    compiled: tuple[Compiled, ...] = ()

    def ready(self, matrices: Sequence[ItemMatrix], now: int) -> "Book":
        """Compiled for `matrices`; what fits already is kept."""
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


class Rulebook:
    """Follows `endcap:rules`; `steering` answers for a request, `tried` for what is only tried out."""

    def __init__(
        self,
        redis: Redis,
        matrices: Callable[[], Sequence[ItemMatrix]],
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._redis, self._matrices, self._clock = redis, matrices, clock
        self._seen = Published()
        self._book, self._tried = Book(0, NOTHING), Book(0, NOTHING)

    async def poll(self) -> None:
        """Look once, compile, swap. Raises redis' errors, RulesError for a document of another program.

        UnavailableError where Redis has lost the rules: those that were loaded hold on.
        """
        self._seen, self._book, self._tried = await asyncio.to_thread(self._looked)

    def _looked(self) -> tuple[Published, Book, Book]:
        seen, book, tried = self._seen, self._book, self._tried
        found = read(self._redis)
        if found.version == 0 and seen.version:
            raise UnavailableError(EMPTY, next_step=MEND)
        if found != seen:
            document, shadow = documents(found)
            if (found.version, found.document) != (seen.version, seen.document):
                book = Book(found.version, document)
            if found.shadow != seen.shadow:
                tried = Book(found.version, shadow or NOTHING)
        matrices, now = self._matrices(), self._clock()
        return found, book.ready(matrices, now), tried.ready(matrices, now)

    @property
    def shadow_name(self) -> str:
        """Of what is tried out beside the lists, "" for nothing."""
        return self._seen.shadow_name

    def steering(self, request: Request, matrix: ItemMatrix, now: int) -> Steering:
        """What the rules that hold ask of the list for `request` at `now` (us)."""
        book = self._book
        if not book.document.rules:
            return Steering(book.version) if book.version else UNSTEERED
        compiled = book.of(matrix, now)
        if compiled is None:
            compiled = Compiled(book.document, matrix, now, book.version)
            self._book = book._replace(compiled=(*book.compiled, compiled)[-MOST:])
        return compiled.steering(request, now)

    def touching(self, request: Request, matrix: ItemMatrix, now: int) -> Callable[[int], list[Touch]]:
        """Of what `steering` answers by at this moment: row -> the rules that concern it."""
        compiled = self._book.of(matrix, now)
        return partial(compiled.touching, request, now) if compiled else lambda row: []

    def tried(self, request: Request, matrix: ItemMatrix, now: int) -> Steering | None:
        """The same of what is tried out; None where nothing is, or not for these items yet."""
        compiled = self._tried.of(matrix, now) if self._seen.shadow else None
        return compiled.steering(request, now) if compiled else None
