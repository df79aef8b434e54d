"""The folds: every stored feature, declared once; the same `step` runs over history and over the stream.

A fold reads one entity's events in event-time order and keeps a bounded state. The stored row *is* the
state: decayed sums carry the instant they stand at, lists carry stamps; feature_repo.vectorize brings both
to `now`, so a row that nobody touched for a week does not go stale. The Feast views are made from `columns`.

    fold              key         reads                                what it knows
    user_history      user_id     product events                       last 20 contacts, long-term counts
    session_context   session_id  product events, removes, impressions cart, intent, what was shown
    item_activity     item_id     product events, clicks, impressions  windowed popularity and exposure
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from feature_repo.events import PRODUCT_TYPES
from feature_repo.folds import DAY_US, MINUTE_US, Column, Decayed, Event, Fold, State, add_decayed
from feature_repo.vocabulary import KINDS

HISTORY = 20  # the towers see the last 20 contacts
BOUGHT = 50
CART = 50
SHOWN = 96  # three of the longest listing pages seen on real data
INTENT_HALF_LIFE = 10 * MINUTE_US
INTENT_WEIGHTS = {"product_viewed": 1.0, "add_to_cart": 3.0, "purchase_completed": 5.0}
POSITION_EXPONENT = 0.5  # examination of position p ~ p ** -0.5: CTR .93 % at 1 and .30 % at 10 on merch


def _remember(state: State, prefix: str, item: str, ts: int, kind: int, limit: int) -> None:
    """Move `item` to the end of the parallel lists <prefix>_items, _ts, _kinds; the kind never goes down."""
    items, stamps, kinds = state[f"{prefix}_items"], state[f"{prefix}_ts"], state[f"{prefix}_kinds"]
    if item in items:
        at = items.index(item)
        kind = max(kind, kinds[at])
        del items[at], stamps[at], kinds[at]
    elif len(items) == limit:
        del items[0], stamps[0], kinds[0]
    items.append(item)
    stamps.append(ts)
    kinds.append(kind)


def _append_distinct(items: list[str], item: str, limit: int) -> None:
    if item in items:
        items.remove(item)
    elif len(items) == limit:
        del items[0]
    items.append(item)


class _Listed:
    """Rows that are the state itself, with lists copied."""

    columns: ClassVar[tuple[Column, ...]]

    def row(self, state: State) -> dict[str, Any]:
        return {c.name: list(v) if isinstance(v := state[c.name], list) else v for c in self.columns}

    def state(self, row: Mapping[str, Any]) -> State:
        return {c.name: list(v) if isinstance(v := row[c.name], list) else v for c in self.columns}


class UserHistory(_Listed):
    """A shopper over all visits: what the user tower and the loyalty features need."""

    name: ClassVar[str] = "user_history"
    key: ClassVar[str] = "user_id"
    types: ClassVar[frozenset[str]] = frozenset(PRODUCT_TYPES)
    max_age_days: ClassVar[int] = 365
    views = Decayed("views_30d", 30 * DAY_US)
    carts = Decayed("carts_30d", 30 * DAY_US)
    purchases = Decayed("purchases_180d", 180 * DAY_US)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("at", "int64", "instant at which the decayed counts stand, us"),
        Column("views_30d", "float64", "product views, weight halves every 30 days"),
        Column("carts_30d", "float64", "adds to cart, weight halves every 30 days"),
        Column("purchases_180d", "float64", "items bought, weight halves every 180 days"),
        Column("sessions", "int64", "visits with product contact so far, this one included"),
        Column("session_id", "string", "the visit of the newest contact"),
        Column("previous_ts", "int64", "last contact before that visit, us; 0 for none"),
        Column("recent_items", "list<string>", "last 20 distinct items, newest last"),
        Column("recent_ts", "list<int64>", "instant of the last contact with each, us"),
        Column("recent_kinds", "list<int64>", "strongest contact: 1 view, 2 cart, 3 purchase"),
        Column("bought_items", "list<string>", "last 50 distinct items bought, newest last"),
    )

    def new(self) -> State:
        return {
            "at": 0,
            "views_30d": 0.0,
            "carts_30d": 0.0,
            "purchases_180d": 0.0,
            "sessions": 0,
            "session_id": "",
            "previous_ts": 0,
            "recent_items": [],
            "recent_ts": [],
            "recent_kinds": [],
            "bought_items": [],
        }

    def step(self, state: State, event: Event) -> State:
        assert event.item_id is not None
        if event.session_id != state["session_id"]:
            state["sessions"] += 1
            state["previous_ts"] = state["at"]
            state["session_id"] = event.session_id
        kind = KINDS[event.type]
        add_decayed(
            state,
            event.ts,
            {self.views: float(kind == 1), self.carts: float(kind == 2), self.purchases: float(kind == 3)},
        )
        _remember(state, "recent", event.item_id, event.ts, kind, HISTORY)
        if kind == 3:
            _append_distinct(state["bought_items"], event.item_id, BOUGHT)
        return state


class SessionContext(_Listed):
    """One visit: contacts, cart, intent, and what the shopper has been shown and when.

    A page is the impressions of one answer (same request_id) or of one listing (same instant).
    """

    name: ClassVar[str] = "session_context"
    key: ClassVar[str] = "session_id"
    types: ClassVar[frozenset[str]] = frozenset((*PRODUCT_TYPES, "remove_from_cart", "impression"))
    max_age_days: ClassVar[int] = 2
    intent = Decayed("intent", INTENT_HALF_LIFE)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("at", "int64", "instant of the newest product contact, at which intent stands, us"),
        Column("started_ts", "int64", "first event of the visit, us"),
        Column("views", "int64", "product views"),
        Column("carts", "int64", "adds to cart"),
        Column("intent", "float64", "view 1, cart 3, purchase 5; weight halves every 10 minutes"),
        Column("contact_items", "list<string>", "last 20 distinct items, newest last"),
        Column("contact_ts", "list<int64>", "instant of the last contact with each, us"),
        Column("contact_kinds", "list<int64>", "strongest contact: 1 view, 2 cart, 3 purchase"),
        Column("cart_items", "list<string>", "in the cart now"),
        Column("bought_items", "list<string>", "bought in this visit"),
        Column("pages", "int64", "listing pages and slots shown so far"),
        Column("page", "string", "identity of the newest page: request_id, else its instant"),
        Column("shown_items", "list<string>", "last 96 distinct items listed, newest last"),
        Column("shown_pages", "list<int64>", "page number at which each was listed last, from 1"),
        Column("shown_positions", "list<int64>", "its position there, from 1; 0 for unknown"),
        Column("shown_counts", "list<int64>", "how often it was listed in this visit"),
    )
    _lists = ("shown_items", "shown_pages", "shown_positions", "shown_counts")

    def new(self) -> State:
        return {
            "at": 0,
            "started_ts": 0,
            "views": 0,
            "carts": 0,
            "intent": 0.0,
            "contact_items": [],
            "contact_ts": [],
            "contact_kinds": [],
            "cart_items": [],
            "bought_items": [],
            "pages": 0,
            "page": "",
            "shown": {},
        }

    def step(self, state: State, event: Event) -> State:
        item = event.item_id
        assert item is not None
        started = state["started_ts"]
        if not started or event.ts < started:
            state["started_ts"] = event.ts
        if event.type == "impression":
            self._show(state, event, item)
            return state
        if event.type == "remove_from_cart":
            if item in state["cart_items"]:
                state["cart_items"].remove(item)
            return state
        kind = KINDS[event.type]
        add_decayed(state, event.ts, {self.intent: INTENT_WEIGHTS[event.type]})
        _remember(state, "contact", item, event.ts, kind, HISTORY)
        if kind == 1:
            state["views"] += 1
        elif kind == 2:
            state["carts"] += 1
            _append_distinct(state["cart_items"], item, CART)
        else:
            if item in state["cart_items"]:
                state["cart_items"].remove(item)
            _append_distinct(state["bought_items"], item, BOUGHT)
        return state

    @staticmethod
    def _show(state: State, event: Event, item: str) -> None:
        page = event.request_id or str(event.ts)
        if page != state["page"]:
            state["page"] = page
            state["pages"] += 1
        shown = state["shown"]
        before = shown.pop(item, None)
        if before is None and len(shown) == SHOWN:
            del shown[next(iter(shown))]
        shown[item] = (state["pages"], event.position or 0, before[2] + 1 if before else 1)

    def row(self, state: State) -> dict[str, Any]:
        shown = state["shown"]
        pages, positions, counts = zip(*shown.values(), strict=True) if shown else ((), (), ())
        flat = {**state, **dict(zip(self._lists, (shown, pages, positions, counts), strict=True))}
        return {
            c.name: list(flat[c.name]) if c.dtype.startswith("list") else flat[c.name] for c in self.columns
        }

    def state(self, row: Mapping[str, Any]) -> State:
        state = super().state(row)
        items, pages, positions, counts = (state.pop(name) for name in self._lists)
        state["shown"] = {
            item: (page, position, count)
            for item, page, position, count in zip(items, pages, positions, counts, strict=True)
        }
        return state


class ItemActivity(_Listed):
    """What all shoppers did with one item. `backfill` in feature_repo.history is its vectorised form."""

    name: ClassVar[str] = "item_activity"
    key: ClassVar[str] = "item_id"
    types: ClassVar[frozenset[str]] = frozenset((*PRODUCT_TYPES, "click", "impression"))
    max_age_days: ClassVar[int] = 365
    counters: ClassVar[dict[str, tuple[Decayed, ...]]] = {
        "product_viewed": (Decayed("views_24h", DAY_US), Decayed("views_7d", 7 * DAY_US)),
        "add_to_cart": (Decayed("carts_7d", 7 * DAY_US),),
        "purchase_completed": (Decayed("purchases_30d", 30 * DAY_US),),
        "click": (Decayed("clicks_7d", 7 * DAY_US),),
        "impression": (Decayed("exposure_7d", 7 * DAY_US),),
    }
    columns: ClassVar[tuple[Column, ...]] = (
        Column("at", "int64", "instant at which the decayed counts stand, us"),
        Column("first_ts", "int64", "first event of the item, us"),
        Column("views_24h", "float64", "views, weight halves every day"),
        Column("views_7d", "float64", "views, weight halves every 7 days"),
        Column("carts_7d", "float64", "adds to cart, weight halves every 7 days"),
        Column("purchases_30d", "float64", "purchases, weight halves every 30 days"),
        Column("clicks_7d", "float64", "clicks in lists, weight halves every 7 days"),
        Column("exposure_7d", "float64", "impressions weighted by position ** -0.5, halves every 7 days"),
    )

    def new(self) -> State:
        return {c.name: 0 if c.dtype == "int64" else 0.0 for c in self.columns}

    def step(self, state: State, event: Event) -> State:
        weight = self.weight(event.type, event.position)
        hit = self.counters[event.type]
        weights = {c: weight if c in hit else 0.0 for group in self.counters.values() for c in group}
        if not state["first_ts"] or event.ts < state["first_ts"]:
            state["first_ts"] = event.ts
        add_decayed(state, event.ts, weights)
        return state

    @staticmethod
    def weight(kind: str, position: int | None) -> float:
        """1, but for an impression the chance that its position is examined (1 at an unknown position).

        >>> ItemActivity.weight("impression", 4)
        0.5
        """
        return position**-POSITION_EXPONENT if kind == "impression" and position else 1.0


USER_HISTORY, SESSION_CONTEXT, ITEM_ACTIVITY = UserHistory(), SessionContext(), ItemActivity()
FOLDS: tuple[Fold, ...] = (USER_HISTORY, SESSION_CONTEXT, ITEM_ACTIVITY)
