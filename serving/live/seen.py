"""What an answer is made of: what was seen of the shopper, and what is told beside the list."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor
from serving.beside.interleaver import Rival
from serving.cascade.queueing import Rung
from serving.flags.assignment import UNTREATED, Treatment
from serving.flags.flagbook import Flagbook, in_variant
from serving.pipeline import Bundle, Served
from serving.rails.rail import Rail
from serving.release.router import HOLDOUT
from serving.rules.compiled import Touch
from serving.rules.rulebook import Rulebook
from serving.stages.steering import UNSTEERED, Steering
from serving.tracing import Trace
from serving.types import Answer, Request, Slot, VisitorRows

NAMED = 20  # unknown items that `warnings` names


class Seen(NamedTuple):
    """What the lists of a request are made of: who answers, and what is known of the shopper at `now`, us."""

    arm: str
    bundle: Bundle
    version: int | None  # of the rollout; None where its lists are no part of it
    now: int
    matrix: ItemMatrix
    rows: VisitorRows
    degraded: str | None
    read_s: float  # how long it took to read
    rung: Rung
    rail: Rail | None = None  # the shopper's, where that is the rung
    treatment: Treatment = UNTREATED  # the experiments of this list
    rival: Rival | None = None  # the release whose list is mixed in

    @property
    def plain(self) -> bool:
        """Bestsellers: of the holdout, or of a variant that asks for them."""
        return self.arm == HOLDOUT or self.treatment.asked.order == "bestsellers"


class Recorded(NamedTuple):
    """A list that nobody was shown, with all that its stages noted down.

    `rules`: row -> the rules that concern it.
    """

    request: Request
    seen: Seen
    visitor: Visitor
    steering: Steering
    slots: tuple[Slot, ...]
    served_from: str
    degraded: str | None
    served: Served | None  # None where no model was asked
    trace: Trace
    warnings: tuple[str, ...]
    rules: Callable[[int], Sequence[Touch]]


def treated(
    flags: Flagbook | None, request: Request, seen: Seen, complain: Callable[[str, Exception], None]
) -> Seen:
    """With the variants of the experiments that this list is part of; what fails there is none."""
    try:
        unit = request.user_id or request.session_id
        found = flags.treatment(request, unit, seen.arm == HOLDOUT) if flags else UNTREATED
        if found is UNTREATED:
            return seen
        return seen._replace(bundle=in_variant(seen.bundle, found.asked), treatment=found, rival=None)
    except Exception as error:
        complain("flags", error)
        return seen


def steered(
    rules: Rulebook | None, request: Request, seen: Seen, complain: Callable[[str, Exception], None]
) -> Steering:
    """What the rules ask, the same in every arm, so that no comparison of two arms holds a rule in it."""
    try:
        asked = request, seen.matrix, seen.now, seen.treatment.asked.rule_set
        return rules.steering(*asked) if rules else UNSTEERED
    except Exception as error:  # a list without them is better than none
        complain("rules", error)
        return UNSTEERED


def warnings(request: Request, matrix: ItemMatrix, replay: bool) -> tuple[str, ...]:
    """What of a request was ignored, in words."""
    found = []
    for name, items in (("items", request.items), ("cart", request.cart)):
        unknown = [item for item in items if item not in matrix.row]
        found += [f"{name}: {item!r} is not in the catalogue and was ignored" for item in unknown[:NAMED]]
        if len(unknown) > NAMED:
            found.append(f"{name}: {len(unknown) - NAMED} more are not in the catalogue")
    if request.as_of is not None and not replay:
        found.append("as_of: ignored, the service does not run with ENDCAP_REPLAY=1")
    return tuple(found)


def apart(
    requests: Sequence[Request],
    steered: Sequence[Steering],
    at: int,
    before: Sequence[Answer],
    ids: Sequence[str],
) -> Request:
    """Request `at` of a page, which bars what the lists `before` it hold and what the others name.

    And what the rules pin in those behind it, unless they pin it here, too: else a pin would hold for those
    shoppers alone who would not have been shown the product anyway. `ids`: of the rows that pins name.
    """
    request = requests[at]
    if len(requests) == 1:
        return request
    taken = {item: None for one in requests if one is not request for item in one.items}
    taken |= {slot.item_id: None for answer in before for slot in answer.items}
    behind = zip(requests[at + 1 :], steered[at + 1 :], strict=True)
    pinned = {pin.row for one, rules in behind for pin in rules.pins if pin.slot < one.limit}
    own = {pin.row for pin in steered[at].pins if pin.slot < request.limit}
    taken |= {ids[row]: None for row in sorted(pinned - own)}
    return replace(request, exclude=(*request.exclude, *taken))


def age_ms(rows: VisitorRows, visitor: Visitor, matrix: ItemMatrix) -> int | None:
    """Age of the newest row that is used of this shopper, else of any item; None where neither is stored."""
    session_ts = rows.session_ts if visitor.session is rows.session else 0  # else of another's visit
    newest = max(rows.user_ts, session_ts) or matrix.newest()
    return max(visitor.now - newest, 0) // 1000 if newest else None


def short_of(request: Request, answer: Answer, served: Served) -> bool:
    """Whether slots are empty that eligible items could have filled; what the request bars is not."""
    given = len(answer.items)
    return given < request.limit and given < int(np.count_nonzero(served.eligible.mask))
