"""Lists before and after a draft: what shoppers would see."""

from collections.abc import Iterator
from typing import NamedTuple

from redis import Redis

from feature_repo.persons.privacy import persons
from monitoring.fitting.showroom import Showroom, lately
from serving.rules.compiled import Compiled
from serving.rules.document import Document
from serving.rules.lint import audiences, moments
from serving.types import Request, Slot


class Fitted(NamedTuple):
    """One list under the rules that hold and under the draft, as it would be `at_us`; `later`: not now."""

    words: str
    rules: tuple[str, ...]
    at_us: int
    before: tuple[Slot, ...]
    after: tuple[Slot, ...]
    later: bool = False

    @property
    def changed(self) -> int:
        """Slots that hold something else."""
        moved = sum(a.item_id != b.item_id for a, b in zip(self.before, self.after, strict=False))
        return moved + abs(len(self.before) - len(self.after))


def requests(
    redis: Redis, draft: Document, surface: str | None, user: str | None, session: str | None
) -> Iterator[tuple[str, Request]]:
    """A question per kind of list that the draft tells apart, asked by who was there lately."""
    user, session = (one and persons().of(one) for one in (user, session))
    kinds = list(audiences(draft)) or [("homepage_hero, anonymous", Request("homepage_hero"))]
    for words, request in kinds:
        if surface not in (None, request.surface):
            continue
        who = next(
            (s for s in lately(redis, request.surface) if bool(s["user_id"]) == bool(request.user_id)), {}
        )
        user_id = (user or who.get("user_id")) if request.user_id else None
        session_id = session or who.get("session_id")
        yield words, Request(request.surface, user_id or request.user_id, session_id, context=request.context)


def lists(
    room: Showroom, before: Document, draft: Document, now: int, asked: Iterator[tuple[str, Request]]
) -> Iterator[Fitted]:
    """Of lists of one surface under the same rules one is shown."""
    old, new = Compiled(before, room.matrix, now), Compiled(draft, room.matrix, now)
    told_of: set[tuple[str, tuple[str, ...]]] = set()
    for words, request in asked:
        at = moment(draft, new, request, now)
        kind = request.surface, new.steering(request, at).rules
        if kind in told_of:
            continue
        told_of.add(kind)
        yield one(room, words, request, at, old, new)._replace(later=at > now)


def moment(draft: Document, new: Compiled, request: Request, now: int) -> int:
    """When most rules of the draft hold for this list, us; the first of such instants."""
    return max(moments(draft, now), key=lambda at: len(new.steering(request, at).rules))


def one(room: Showroom, words: str, request: Request, at: int, old: Compiled, new: Compiled) -> Fitted:
    """The list for `request` at `at` (us)."""
    held, drafted = old.steering(request, at), new.steering(request, at)
    first, then = room.lists(request, at, held, drafted)
    return Fitted(words, drafted.rules, at, first.slots, then.slots)
