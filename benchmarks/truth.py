"""What could be known of the simulated shop's queries: the true best list, and what is attainable.

The simulation is repeated from params.yaml, which gives back the state of every visit that no export holds:
who the shopper is, the category and style that the visit is after, the page it is on. With that,

    true best list   the items likeliest to be clicked if they were listed (World.click_probability)
    attainable       the items likeliest to be contacted later in this visit, as the queries ask: the rest of
                     the page is drawn and the visit walked on, COPIES times, by the simulation's own rules

The second is the best that anybody could list, up to the noise of COPIES; no model sees any of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from asked import Case, K
from peers.contract import Rows, best

from feature_repo.clock import DAY_US, micros
from feature_repo.errors import DataError
from feature_repo.params import load, shop
from feature_repo.persons.privacy import persons
from feature_repo.places import EVENTS
from pipelines.protocol.queries import product_events
from pipelines.simulate.arrivals import Sessions, schedule
from pipelines.simulate.journeys import KINDS, Walk
from pipelines.simulate.simulate import Simulate, make_world
from pipelines.simulate.world import Context, World

COPIES = 100
CHUNK = 200  # queries walked on at once
AGAIN = "run `endcap simulate` and all stages after it"
LANDED = -1  # step of a visit that has seen no page yet


class Told(Walk):
    """A walk that tells where the intent of a visit moved, and at which step a page was shown."""

    def _choose_pages(self, rows: np.ndarray, step: int) -> Iterator[tuple[str, np.ndarray]]:
        for surface, chosen in super()._choose_pages(rows, step):
            self.steps = [*getattr(self, "steps", []), np.full(len(chosen), step)]
            yield surface, chosen

    def _drift(self, alive: np.ndarray) -> None:
        super()._drift(alive)
        moved = np.stack([alive, self.clock[alive], self.leaf[alive]])
        self.moves = [*getattr(self, "moves", []), moved]


@dataclass(frozen=True)
class State:
    """What is true at one query: rows of the world's tables, `at` in us since the start of the period."""

    session: int
    leaf: int
    focus: int
    cart: int
    step: int
    linked: bool  # came by a link in the text: no link is followed from it in the same step
    at: int
    rest: Rows  # items of the page still to be looked at
    chances: np.ndarray  # of a click on each


class Truth:
    """The repeated simulation. Raises DataError where the shop's events are not those of params.yaml."""

    def __init__(self) -> None:
        constants = load("simulate", Simulate)
        rng = np.random.default_rng(constants.seed)
        size = constants.size_of(shop().name)
        self.world: World = make_world(constants, size, rng)
        self.sessions: Sessions = schedule(self.world, size.sessions, constants.days, rng)
        called = persons()  # the export has numbers, the stores have pseudonyms
        self._visit = {called.of(f"s{number:07d}"): number for number in range(len(self.sessions))}
        self._journey = constants.journey
        walk = Told(self.world, self.sessions, constants.journey, rng)
        self._log = walk.run(constants.days * DAY_US)
        self._steps = np.concatenate(walk.steps)
        moves = np.concatenate(walk.moves, axis=1)
        self._moves = moves[:, np.lexsort((moves[1], moves[0]))]
        self._n = len(self.world.shop.item_ids)
        log = self._log
        views = np.flatnonzero(log["kind"] == KINDS.index("product_viewed"))
        pairs = log["session"][views] * self._n + log["item"][views]
        _, first = np.unique(pairs, return_index=True)
        self._view = dict(zip(pairs[first].tolist(), views[first].tolist(), strict=True))
        self._by_session = np.argsort(log["session"], kind="stable")  # in order of time within a session
        self._starts = np.searchsorted(log["session"][self._by_session], np.arange(len(self.sessions) + 1))
        events = product_events()
        if (events["type"] == "product_viewed").sum() != len(views):
            raise DataError(EVENTS, "is not what `simulate` gives", next_step=AGAIN)

    def lists(self, cases: Sequence[Case], ids: Sequence[str], seed: int) -> tuple[Rows, Rows]:
        """(true best lists, attainable lists), rows of `ids`, (q, K) each, -1 for an empty place."""
        rng, to_world = np.random.default_rng(seed), np.array([self.world.row[item] for item in ids])
        states = [self._state(case, to_world) for case in cases]
        chances = self._later(states, rng)
        clicked, later = np.full((len(cases), K), -1), np.full((len(cases), K), -1)
        for number, (case, state) in enumerate(zip(cases, states, strict=True)):
            who = self.sessions.shopper[state.session]
            style, day = int(self.sessions.style[state.session]), state.at / DAY_US
            context = Context("search", state.leaf, style, state.focus, day)
            click = self.world.click_probability(who, np.arange(self._n), context)[to_world]
            nothing, eligible = np.zeros(len(ids)), case.eligible(len(ids))
            for lists, scores in ((clicked, click), (later, chances[number][to_world] + click / COPIES)):
                found = best(scores, nothing, eligible, K)
                lists[number, : len(found)] = found
        return clicked, later

    def _state(self, case: Case, to_world: Rows) -> State:
        log, focus = self._log, self.world.row[case.query.history[-1]]
        try:
            session = self._visit[case.query.session_id]
            view = self._view[session * self._n + focus]
        except KeyError:
            raise DataError(EVENTS, f"{case.query.session_id} is another visit", next_step=AGAIN) from None
        at, page = int(log["at"][view]), int(log["page"][view])
        mine = self._by_session[self._starts[session] : self._starts[session + 1]]
        before = mine[log["at"][mine] <= at]
        pages = log["page"][before]
        step = int(self._steps[pages.max()]) if (pages >= 0).any() else LANDED
        rest = np.empty(0, np.int64)
        if page >= 0:
            shown = mine[(log["page"][mine] == page) & (log["kind"][mine] == KINDS.index("impression"))]
            rest = shown[log["position"][shown] > log["position"][view]]
        span = slice(*np.searchsorted(self._moves[0], [session, session + 1]))
        moved = self._moves[2, span][self._moves[1, span] <= at]
        leaf = int(moved[-1]) if len(moved) else int(self.sessions.leaf[session])
        cart = self._cart(before)
        return State(session, leaf, focus, cart, step, page < 0, at, log["item"][rest], log["chance"][rest])

    def _cart(self, before: Rows) -> int:
        kinds, items = self._log["kind"][before], self._log["item"][before]
        gone = set(items[kinds == KINDS.index("remove_from_cart")].tolist())
        kept = [item for item in items[kinds == KINDS.index("add_to_cart")].tolist() if item not in gone]
        return kept[-1] if kept else -1

    def _later(self, states: Sequence[State], rng: np.random.Generator) -> np.ndarray:
        """Share of the copies of each visit that contact each item later, float32 (q, items of the world)."""
        found = np.zeros((len(states), self._n), np.float32)
        for step in sorted({state.step for state in states}):
            alike = [number for number, state in enumerate(states) if state.step == step]
            for at in range(0, len(alike), CHUNK):
                part = np.array(alike[at : at + CHUNK])
                copy, item = self._walked([states[number] for number in part], step, rng)
                np.add.at(found, (part[copy // COPIES], item), 1 / COPIES)
        return found

    def _walked(self, states: Sequence[State], step: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """(copy, item) of every first contact after the query; copies of state s are s * COPIES and on."""
        of = np.repeat(np.arange(len(states)), COPIES)
        session, at, leaf, focus, cart = (
            np.array([getattr(state, name) for state in states])[of]
            for name in ("session", "at", "leaf", "focus", "cart")
        )
        visit = self.sessions
        copies = Sessions(visit.shopper[session], at, leaf, visit.style[session], visit.channel[session])
        walk = Walk(self.world, copies, self._journey, rng)
        walk.focus, walk.cart, walk.viewed = focus.copy(), cart.copy(), np.ones(len(of), np.bool_)
        for state_at, state in enumerate(states):
            clicked = rng.random((COPIES, len(state.rest))) < state.chances
            for slot in range(len(state.rest)):
                rows = state_at * COPIES + np.flatnonzero(clicked[:, slot])
                walk._view(rows, np.full(len(rows), state.rest[slot]), walk.clock[rows])
        alive = np.arange(len(of))
        if step != LANDED:
            linked = np.array([state.linked for state in states])[of]
            walk._follow_links(alive[~linked])
            walk._drift(alive)
            alive = alive[rng.random(len(alive)) < self._journey.stay_viewed]
        for onward in range(step + 1, self._journey.max_pages):
            for surface, rows in walk._choose_pages(alive, onward):
                walk._show(surface, rows)
            walk._follow_links(alive)
            walk._drift(alive)
            stays = np.where(walk.viewed[alive], self._journey.stay_viewed, self._journey.stay_idle)
            alive = alive[rng.random(len(alive)) < stays]
        if not walk.diary.chunks:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        log = walk.diary.finish(micros(shop().test_from))  # in us of the period: later than any walk
        viewed = log["kind"] == KINDS.index("product_viewed")
        pairs = np.unique(log["session"][viewed] * self._n + log["item"][viewed])
        return pairs // self._n, pairs % self._n
