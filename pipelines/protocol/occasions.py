"""When a surface is asked, and what was wanted then: the query points of its evaluation slice.

    truth              asked                                     wanted
    next_carted        as a product page is first opened         the other item carted next in the visit
    joined_cart        as an item joins the cart                 what joins it later in the visit
    next_of_kind       as a product page is first opened         the other item of its category viewed next
    back_after_cart    after a visit that left its cart behind   what is new in the shopper's next visit
    back_after_browse  after a visit without a cart              likewise
    back_after_order   after a visit with an order               likewise

A question knows all that happened by then; one that nothing answers is left out. Where nobody carts, what is
bought counts as carted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from feature_repo.clock import micros
from pipelines.protocol.queries import Query
from serving.types import Context

BACK = "back_after_"
VIEW, CART, PURCHASE = "product_viewed", "add_to_cart", "purchase_completed"


class Left(NamedTuple):
    """How a visit ended: the truth of the e-mail that it calls for, and the items to start from."""

    truth: str
    items: list[str]


class Visit(NamedTuple):
    """Product events of one visit in order; `users` as known by then."""

    session_id: str
    stamps: list[int]
    types: list[str]
    items: list[str]
    users: list[str | None]
    context: Context

    def query(
        self, at: int, surface: str, items: Sequence[str], cart: Sequence[str], wanted: set[str]
    ) -> Query:
        """What the surface is asked just after the event `at`."""
        who, page = self.users[at], tuple(items)
        asked = Query(0, self.stamps[at] + 1, who, self.session_id, (), frozenset(wanted), self.context)
        return replace(asked, surface=surface, items=page, cart=tuple(cart))


def occasions(
    events: pd.DataFrame,
    surface: str,
    truth: str,
    category: Mapping[str, str | None],
    start: datetime,
    end: datetime | None,
    limit: int,
    rng: np.random.Generator,
) -> list[Query]:
    """About `limit` questions of `surface` in visits of [start, end), whole visits drawn by `rng`, by time.

    `events` as queries.product_events gives them; `category`: item -> leaf category.
    """
    first = events.groupby("session_id")["event_ts"].transform("min")
    inside = first >= micros(start)
    if end is not None:
        inside &= first < micros(end)
    asked = events[inside]
    wants = (CART,) if (events["type"] == CART).any() else (PURCHASE,)
    groups = dict(tuple(asked.groupby("session_id", sort=True)))
    names, after = list(groups), _next_visits(groups) if truth.startswith(BACK) else {}
    found: list[Query] = []
    for place in rng.permutation(len(names)):
        if len(found) >= limit:
            break
        visit = _visit(names[place], groups[names[place]])
        if not truth.startswith(BACK):
            found += _TRUTHS[truth](visit, surface, category, wants)
        elif visit.session_id in after:
            later = groups[after[visit.session_id]]["item_id"]
            found += _back(visit, surface, truth, set(later))
    found.sort(key=lambda query: (query.now, query.session_id))
    return [replace(query, id=number) for number, query in enumerate(found)]


def _visit(name: str, rows: pd.DataFrame) -> Visit:
    users = rows["user_id"].ffill()
    head = rows.iloc[0]
    context = Context(device=head["device"], country=head["country"], channel=head["channel"])
    known = users.where(users.notna(), None).tolist()
    return Visit(
        name, rows["event_ts"].tolist(), rows["type"].tolist(), rows["item_id"].tolist(), known, context
    )


def _cart(visit: Visit, at: int, wants: tuple[str, ...]) -> list[str]:
    """What was put into the cart up to the event `at`, each once; what left it again counts as known."""
    pairs = zip(visit.types[: at + 1], visit.items[: at + 1], strict=True)
    return list(dict.fromkeys(item for kind, item in pairs if kind in wants))


def _pages(visit: Visit) -> Iterator[int]:
    """Events that open a product page for the first time in the visit."""
    seen: set[str] = set()
    for at, (kind, item) in enumerate(zip(visit.types, visit.items, strict=True)):
        if kind == VIEW and item not in seen:
            yield at
        seen.add(item)


def _next_carted(visit: Visit, surface: str, _: Any, wants: tuple[str, ...]) -> Iterator[Query]:
    for at in _pages(visit):
        page, cart = visit.items[at], _cart(visit, at, wants)
        later = zip(visit.types[at + 1 :], visit.items[at + 1 :], strict=True)
        wanted = next((i for kind, i in later if kind in wants and i != page and i not in cart), None)
        if wanted is not None:
            yield visit.query(at, surface, [page], cart, {wanted})


def _joined_cart(visit: Visit, surface: str, _: Any, wants: tuple[str, ...]) -> Iterator[Query]:
    for at, kind in enumerate(visit.types):
        if kind not in wants or visit.items[at] in _cart(visit, at - 1, wants):
            continue
        cart = _cart(visit, at, wants)
        if wanted := {*_cart(visit, len(visit.types), wants)} - {*cart}:
            yield visit.query(at, surface, [], cart, wanted)


def _next_of_kind(
    visit: Visit, surface: str, category: Mapping[str, str | None], wants: tuple[str, ...]
) -> Iterator[Query]:
    for at in _pages(visit):
        page, cart = visit.items[at], _cart(visit, at, wants)
        kind = category.get(page)
        later = zip(visit.types[at + 1 :], visit.items[at + 1 :], strict=True)
        barred = {page, *cart}
        wanted = next(
            (i for t, i in later if t == VIEW and i not in barred and category.get(i) == kind), None
        )
        if kind and wanted is not None:
            yield visit.query(at, surface, [page], cart, {wanted})


def left(types: Sequence[str], items: Sequence[str]) -> Left:
    """How a visit ended whose product events, in order, are of `types` and with `items`.

    >>> left([VIEW, CART, VIEW], ["a", "b", "c"])
    Left(truth='back_after_cart', items=['b'])
    """
    of = {
        kind: [i for t, i in zip(types, items, strict=True) if t == kind] for kind in (VIEW, CART, PURCHASE)
    }
    for truth, kind in (
        ("back_after_order", PURCHASE),
        ("back_after_cart", CART),
        ("back_after_browse", VIEW),
    ):
        if of[kind]:
            return Left(truth, list(dict.fromkeys(of[kind])))
    return Left("", [])


def _back(visit: Visit, surface: str, truth: str, later: set[str]) -> Iterator[Query]:
    how = left(visit.types, visit.items)
    if how.truth == truth and (wanted := later - {*visit.items}):
        cart = how.items if truth == "back_after_cart" else []
        yield visit.query(len(visit.types) - 1, surface, [] if cart else how.items, cart, wanted)


def _next_visits(groups: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Visit -> the next visit of its shopper, where both are known."""
    heads = pd.DataFrame(
        [
            (name, rows["user_id"].dropna().iloc[:1].max(), rows["event_ts"].iloc[0])
            for name, rows in groups.items()
        ],
        columns=["session_id", "user_id", "begun"],
    )
    known = heads[heads["user_id"].notna()].sort_values(["user_id", "begun", "session_id"])
    following = known.groupby("user_id")["session_id"].shift(-1)
    pairs = zip(known["session_id"], following, strict=True)
    return {name: other for name, other in pairs if isinstance(other, str)}


_TRUTHS: Mapping[str, Callable[..., Iterator[Query]]] = {
    "next_carted": _next_carted,
    "joined_cart": _joined_cart,
    "next_of_kind": _next_of_kind,
}
