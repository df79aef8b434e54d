"""What happens in the sessions of the simulated shop, all sessions at once, page after page.

A page lists items; those that are looked at and liked are clicked, a click opens the product, a viewed
product may go into the cart, and at the end the cart may be ordered. The product viewed last sets what the
next page is about.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from feature_repo.clock import DAY_US, SECOND_US
from feature_repo.events import TYPES
from pipelines.simulate.arrivals import Sessions
from pipelines.simulate.shelves import EMAILS, SLOTS, Shelves, Visitors
from pipelines.simulate.world import ADDRESSED, World, draw_names

SURFACES = tuple(SLOTS)  # codes of the column `surface`
KINDS = TYPES  # codes of the column `kind`
_NAME = np.array(SURFACES).dtype  # wide enough for every surface


@dataclass(frozen=True)
class Journey:
    """Probabilities of the steps of a session; section `simulate.journey` of params.yaml.

    `first`, `viewed` and `idle` are the shares of page kinds at the start, after a page that led to a
    product, and after one that led to none.
    """

    max_pages: int
    landing_share: float
    refined_share: float
    related_link: float
    drift: float
    stay_viewed: float
    stay_idle: float
    upsell_share: float
    remove_share: float
    dwell_share: float
    scroll_share: float
    first: dict[str, float]
    viewed: dict[str, float]
    idle: dict[str, float]


@dataclass
class Diary:
    """Columns of everything that happened, grown page by page; -1 stands for nothing."""

    chunks: list[dict[str, np.ndarray]] = field(default_factory=list)

    def write(
        self, kind: str, session: np.ndarray, at: np.ndarray, **columns: np.ndarray | int | float
    ) -> None:
        """Add one row per session: `at` in microseconds since the start of the period."""
        row: dict[str, np.ndarray | int | float] = {
            "kind": KINDS.index(kind), "session": session, "at": at, "item": -1, "page": -1, "surface": -1,
            "position": -1, "query": -1, "chance": np.nan,
        }  # fmt: skip
        self.chunks.append(
            {k: np.broadcast_to(np.asarray(v), len(session)) for k, v in (row | columns).items()}
        )

    def finish(self, end: int) -> dict[str, np.ndarray]:
        """All columns before `end` (us) in order of time; rows of one microsecond stay as they were written.

        Columns: kind, session, at, item, page, surface, position (1-based), for searches `query` (the
        leaf asked for), and for impressions `chance` (the probability with which a click followed).
        """
        columns = {name: np.concatenate([chunk[name] for chunk in self.chunks]) for name in self.chunks[0]}
        order = np.argsort(columns["at"], kind="stable")
        order = order[columns["at"][order] < end]
        return {name: column[order] for name, column in columns.items()}


class Walk:
    """The state of all sessions on their way through the shop."""

    def __init__(self, world: World, sessions: Sessions, journey: Journey, rng: np.random.Generator) -> None:
        n = len(sessions)
        self.world, self.sessions, self.journey, self.rng = world, sessions, journey, rng
        self.shelves = Shelves(world, journey.refined_share)
        self.diary = Diary()
        self.clock = sessions.start_us.copy()
        self.leaf = sessions.leaf.copy()
        self.focus = np.full(n, -1)
        self.cart = np.full(n, -1)
        self.viewed = np.zeros(n, dtype=bool)  # in the last step
        self.pages = 0
        self.baskets: list[tuple[np.ndarray, ...]] = []  # session, item, page, surface, position

    def run(self, end: int, on_page: Callable[[int], None] | None = None) -> dict[str, np.ndarray]:
        """Walk until every session has ended, and keep what happened before `end` (us).

        `on_page` hears after each step how many sessions took it.
        """
        alive = np.arange(len(self.sessions))
        self._land(alive)
        for step in range(self.journey.max_pages):
            for surface, rows in self._choose_pages(alive, step):
                self._show(surface, rows)
            self._follow_links(alive)
            self._drift(alive)
            if on_page is not None:
                on_page(len(alive))
            stays = np.where(self.viewed[alive], self.journey.stay_viewed, self.journey.stay_idle)
            alive = alive[self.rng.random(len(alive)) < stays]
        self._order()
        return self.diary.finish(end)

    def _visitors(self, rows: np.ndarray) -> Visitors:
        visit = self.sessions
        day = self.clock[rows] / DAY_US
        return Visitors(
            visit.shopper[rows], self.leaf[rows], visit.style[rows], self.focus[rows], self.cart[rows], day
        )

    def _seconds(self, median: float, n: int | tuple[int, ...]) -> np.ndarray:
        """Log-normal durations in microseconds."""
        return (self.rng.lognormal(np.log(median), 0.6, n) * SECOND_US).astype(np.int64)

    def _land(self, rows: np.ndarray) -> None:
        """Some sessions open on a product page, from a search engine or a link: a view without a list."""
        mailed = np.isin(self.sessions.channel[rows], ADDRESSED)
        rows = rows[~mailed & (self.rng.random(len(rows)) < self.journey.landing_share)]
        items = self.shelves.draw_liked(self._visitors(rows), self.rng)
        self._view(rows[items >= 0], items[items >= 0], self.clock[rows[items >= 0]])
        self.clock[rows] += self._seconds(25, len(rows))

    def _choose_pages(self, rows: np.ndarray, step: int) -> Iterator[tuple[str, np.ndarray]]:
        """Each of `rows` under the surface that it opens next."""
        journey, n = self.journey, len(rows)
        onward = draw_names(journey.viewed, n, self.rng)
        afresh = draw_names(journey.first if step == 0 else journey.idle, n, self.rng)
        page = np.where(self.viewed[rows], onward, afresh).astype(_NAME)
        upsell = (self.cart[rows] >= 0) & (self.rng.random(n) < journey.upsell_share)
        page[upsell] = "cart_upsell"
        if step == 0:
            mailed = np.isin(self.sessions.channel[rows], ADDRESSED)
            page[mailed] = self.rng.choice(np.array(EMAILS), n)[mailed]
        for surface in SURFACES:
            chosen = rows[page == surface]
            if len(chosen):
                yield surface, chosen

    def _show(self, surface: str, rows: np.ndarray) -> None:
        """One page for each of `rows`: the list, the clicks on it, and what they lead to."""
        who, rng = self._visitors(rows), self.rng
        items = self.shelves.fill(surface, who, rng)  # (n, slots)
        slots = np.arange(1, items.shape[1] + 1)
        chance = self.world.examination(slots) * self.world.click_probability(
            who.shopper, items, who.context(surface)
        )
        clicked = rng.random(items.shape) < chance
        page = self.pages + np.arange(len(rows))
        self.pages += len(rows)
        opened, code = self.clock[rows], SURFACES.index(surface)
        if surface == "search":
            self.diary.write(
                "search", rows, opened - SECOND_US // 2, page=page, surface=code, query=self.leaf[rows]
            )
        row, slot = np.nonzero(items >= 0)
        self.diary.write(
            "impression", rows[row], opened[row], item=items[row, slot], page=page[row], surface=code,
            position=slot + 1, chance=chance[row, slot],
        )  # fmt: skip
        scrolled = rng.random(len(rows)) < self.journey.scroll_share
        late = opened + self._seconds(3, len(rows))
        self.diary.write("scroll", rows[scrolled], late[scrolled], page=page[scrolled], surface=code)
        reading = np.where(clicked, self._seconds(20, items.shape) + 10 * SECOND_US, 0).cumsum(1)
        row, slot = np.nonzero(clicked)  # in order of position within a page
        when = opened[row] + reading[row, slot] - 9 * SECOND_US
        place = {"page": page[row], "surface": np.full(len(row), code), "position": slot + 1}
        self.diary.write("click", rows[row], when, item=items[row, slot], **place)
        self.viewed[rows] = False
        self._view(rows[row], items[row, slot], when + 300_000, **place)
        self.clock[rows] = opened + self._seconds(8, len(rows)) + reading[:, -1]

    def _view(self, rows: np.ndarray, items: np.ndarray, at: np.ndarray, **place: np.ndarray) -> None:
        """Products opened by `rows` (of a session in order, perhaps several), and carts filled there."""
        rng, journey = self.rng, self.journey
        self.diary.write("product_viewed", rows, at, item=items, **place)
        dwells = rng.random(len(rows)) < journey.dwell_share
        part = {name: column[dwells] for name, column in place.items()}
        self.diary.write("dwell", rows[dwells], at[dwells] + 7 * SECOND_US, item=items[dwells], **part)
        who = self._visitors(rows)
        likes = self.world.cart_probability(who.shopper, items[:, None], who.context())[:, 0]
        added = rng.random(len(rows)) < likes
        self.focus[rows], self.viewed[rows] = items, True  # the last assignment to a session stays
        rows, items, at = rows[added], items[added], at[added] + 6 * SECOND_US
        place = {name: column[added] for name, column in place.items()}
        self.diary.write("add_to_cart", rows, at, item=items, **place)
        regret = rng.random(len(rows)) < journey.remove_share
        part = {name: column[regret] for name, column in place.items()}
        self.diary.write(
            "remove_from_cart", rows[regret], at[regret] + 2 * SECOND_US, item=items[regret], **part
        )
        nowhere = np.full(len(rows), -1)
        basket = (rows, items, *(place.get(name, nowhere) for name in ("page", "surface", "position")))
        self.baskets.append(tuple(column[~regret] for column in basket))
        self.cart[rows[~regret]] = items[~regret]

    def _follow_links(self, alive: np.ndarray) -> None:
        """From a product to one of its accessories by a link in the text, which no list logs."""
        rows = alive[self.viewed[alive] & (self.rng.random(len(alive)) < self.journey.related_link)]
        links = self.world.shop.accessories[self.focus[rows]]
        links = np.where(self.world.shop.on_sale(links, self.clock[rows, None] / DAY_US), links, -1)
        pick = np.where(links >= 0, self.rng.random(links.shape), -1.0).argmax(1)
        items = links[np.arange(len(rows)), pick]
        rows, items = rows[items >= 0], items[items >= 0]
        self._view(rows, items, self.clock[rows])
        self.clock[rows] += self._seconds(25, len(rows))

    def _drift(self, alive: np.ndarray) -> None:
        """After a look at a product, the intent of some moves to a complementary leaf."""
        rows = alive[self.viewed[alive] & (self.rng.random(len(alive)) < self.journey.drift)]
        shop = self.world.shop
        self.leaf[rows] = shop.complements[shop.leaf[self.focus[rows]], self.rng.integers(3, size=len(rows))]

    def _order(self) -> None:
        """Sessions with a cart order all of it or nothing; the item put in last decides how likely."""
        session, item, page, surface, position = (
            np.concatenate(columns) for columns in zip(*self.baskets, strict=True)
        )
        rows = np.flatnonzero(self.cart >= 0)
        who = self._visitors(rows)
        likely = self.world.order_probability(who.shopper, self.cart[rows][:, None], who.context())
        orders = np.zeros(len(self.sessions), dtype=bool)
        orders[rows] = self.rng.random(len(rows)) < likely[:, 0]
        _, first = np.unique(session * len(self.world.shop.item_ids) + item, return_index=True)
        first = first[orders[session[first]]]
        self.clock += self._seconds(90, len(self.clock))
        self.diary.write(
            "purchase_completed", session[first], self.clock[session[first]], item=item[first],
            page=page[first], surface=surface[first], position=position[first],
        )  # fmt: skip
