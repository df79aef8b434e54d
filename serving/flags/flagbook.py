"""What a worker holds of the experiments, and what a treatment does to a list.

A request takes its treatment once. A rule set is compiled before any request can ask for it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from redis import Redis

from feature_repo.errors import UnavailableError
from feature_repo.online.changes import EMPTY as LOST
from serving.flags import flag_versions
from serving.flags.assignment import UNTREATED, Evaluation, Treatment, evaluate, treatment
from serving.flags.flag_document import EMPTY, Change
from serving.flags.flag_versions import Published
from serving.pipeline import Bundle
from serving.rules.document import Document
from serving.stages.odds import UNWEIGHTED
from serving.stages.rank import Untrained
from serving.types import Request

MEND = "`endcap experiment publish FILE --why TEXT`; what was loaded holds on"


class Flagbook:
    """Follows `endcap:flags`; `keep` is told of the rule sets before their flags hold."""

    def __init__(self, redis: Redis, keep: Callable[[Mapping[str, Document]], None]) -> None:
        self._redis, self._keep = redis, keep
        self._seen, self._flags, self._runs = Published(), EMPTY, False

    async def poll(self) -> None:
        """Look once, compile, swap. Raises redis' errors, FlagsError for a document of another program.

        UnavailableError where Redis has lost it: what was loaded holds on.
        """
        await asyncio.to_thread(self._look)

    def _look(self) -> None:
        found = flag_versions.read(self._redis)
        if found == self._seen:
            return
        if found.version == 0:
            raise UnavailableError(LOST, next_step=MEND)
        flags = found.flags()
        self._keep(flags.rule_sets)
        self._flags, self._runs = flags, any(flag.running for flag in flags.flags)
        self._seen = found

    def treatment(self, request: Request, unit: str | None, held_out: bool) -> Treatment:
        """Of one list; costs nothing while no experiment runs."""
        return treatment(self._flags, request, unit, held_out) if self._runs else UNTREATED

    def evaluate(self, key: str, request: Request, unit: str | None, held_out: bool) -> Evaluation | None:
        """Of one flag; None where there is no such."""
        found = next((flag for flag in self._flags.flags if flag.key == key), None)
        return evaluate(self._flags, found, request, unit, held_out) if found else None

    @property
    def version(self) -> int:
        """Of the document that is held."""
        return self._seen.version

    @property
    def keys(self) -> list[str]:
        return [flag.key for flag in self._flags.flags]


def in_variant(bundle: Bundle, asked: Change) -> Bundle:
    """The release as a variant has it; bestsellers are the ladder's, and rules are the rulebook's."""
    if asked.trade_off is not None:
        bundle = replace(bundle, diversify=replace(bundle.diversify, trade_off=asked.trade_off))
    if asked.order == "blend":
        bundle = replace(bundle, ranker=Untrained(), clicks=UNWEIGHTED)
    return bundle
