"""Champion and challenger inside one list, for a share of the shoppers: what is shown, and whose slot it is.

Each release makes its whole list, with its own diversity and by the shop's rules; the draft mixes them, the
rules' caps hold over the mixture, and pins, which belong to nobody, come last. Nothing is left to a draw: the
long tail and what is explored have their slots in everybody else's lists.

Not interleaved: the holdout, who has no id, any list while a canary is on trial or once another release is
champion, lists that are part of an experiment (its variants must differ in nothing else), and lists that must
be quick. Where the second list would be late, or fails, or caps leave the mixture short, the champion's is
shown alone.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from redis import Redis

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor
from serving import pipeline, prometheus
from serving.beside.draft import NOBODY, SECOND, draft
from serving.beside.trial import INTERLEAVE, InterleaveParams, Trial, read
from serving.cascade.queueing import ARRIVED
from serving.explore.chance import draw
from serving.pipeline import Bundle, Served
from serving.release.loaded import Current, Loaded
from serving.release.router import CHAMPION, position
from serving.release.state import Release
from serving.stages.steering import Room, Steering, with_pins
from serving.types import Request, Slot


class Rival(NamedTuple):
    """The release whose list this shopper's is mixed with."""

    loaded: Loaded
    trial: Trial


class Mixture(NamedTuple):
    """A list of both: how it came about, the challenger's digest, a letter per slot."""

    served: Served
    rival: str
    teams: str

    def told(self) -> dict[str, str]:
        """As the log of what was shown has it."""
        return {"rival": self.rival, "teams": self.teams}


class Interleaver:
    """Follows `endcap:interleave`; `load` and `steering` as serving.beside.understudy.Understudy has them."""

    def __init__(
        self,
        redis: Redis,
        load: Callable[[Release | None], Awaitable[Loaded | None]],
        steering: Callable[[Request, ItemMatrix, int], Steering],
        params: InterleaveParams,
    ) -> None:
        self._redis, self._load, self._steering = redis, load, steering
        self._within_s = params.within_ms / 1000
        self._rival: Rival | None = None

    async def poll(self) -> None:
        """Look once, load or forget. Raises redis' errors: what is loaded stays until Redis answers."""
        trial = await asyncio.to_thread(read, self._redis, INTERLEAVE)
        loaded = await self._load(trial.release if trial else None)
        self._rival = Rival(loaded, trial) if loaded and trial else None

    def rival(self, current: Current, arm: str, unit: str | None) -> Rival | None:
        """Whom the shopper `unit` sees beside the champion; None for most."""
        rival = self._rival
        if rival is None or unit is None or arm != CHAMPION or current.state.challenger is not None:
            return None
        if rival.trial.champion != current.champion.bundle.digest:
            return None
        inside = position(unit, rival.trial.salt, b"endcap-mixed") < rival.trial.share
        return rival if inside else None

    def mixed(
        self,
        rival: Rival,
        request: Request,
        visitor: Visitor,
        matrix: ItemMatrix,
        steering: Steering,
        mine: Served,
        bundle: Bundle,
        complain: Callable[[str, Exception], None],
    ) -> Mixture | None:
        """The champion's list `mine`, made without a draw, with the rival's; None where it stands alone."""
        outcome, found = "late", None
        if self._age_s() + sum(mine.seconds.values()) <= self._within_s:
            try:
                found = self._mixed(rival, request, visitor, matrix, steering, mine, bundle)
                outcome = "made" if found else "short"
            except Exception as error:  # a verdict on the rival, not on this answer
                complain("interleaving", error)
                outcome = "failed"
        prometheus.BESIDE.labels(INTERLEAVE, outcome).inc()
        return found

    def _age_s(self) -> float:
        arrived = ARRIVED.get()
        return time.perf_counter() - arrived if arrived is not None else 0.0

    def _mixed(
        self,
        rival: Rival,
        request: Request,
        visitor: Visitor,
        matrix: ItemMatrix,
        steering: Steering,
        mine: Served,
        bundle: Bundle,
    ) -> Mixture | None:
        other, features = rival.loaded
        theirs, rules = matrix, steering
        if other.manifest["space"] != bundle.manifest["space"]:  # its items have rows of their own
            theirs = features.matrix.as_of(visitor.now)
            rules = self._steering(request, theirs, visitor.now)
        made = pipeline.recommend(request, undrawn(other), visitor, theirs, rules)
        slots = [
            {matrix.row[s.item_id]: s for s in of.slots if s.item_id in matrix.row} for of in (mine, made)
        ]
        pinned = [pin.row for pin in mine.pins]
        room = Room(steering.caps, pinned)
        coins = random.Random(f"{rival.trial.salt}:{draw(request, visitor, b'endcap-teams')}")
        free = request.limit - len(pinned)
        teams = dict(
            draft(list(slots[0]), list(slots[1]), free, lambda: coins.random() < 0.5, room.has, room.take)
        )
        rows = with_pins(list(teams), mine.pins, request.limit)
        if len(rows) < len(mine.slots):
            return None
        shown = [_slot(row, at, teams.get(row, NOBODY), slots) for at, row in enumerate(rows)]
        served = replace(mine, slots=tuple(shown))
        return Mixture(served, other.digest, "".join(teams.get(row, NOBODY) for row in rows))


def undrawn(bundle: Bundle) -> Bundle:
    """The release without a slot for the long tail: what a draw fills is no ranker's doing."""
    return replace(bundle, diversify=replace(bundle.diversify, tail_share=0.0))


def _slot(row: int, at: int, team: str, slots: list[dict[int, Slot]]) -> Slot:
    """As its own list has it, nobody's as the champion's."""
    first, second = slots if team != SECOND else slots[::-1]
    return replace(first.get(row) or second[row], slot=at)
