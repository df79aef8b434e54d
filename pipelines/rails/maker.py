"""Makes rails as the service makes lists: the champion, rows and items of Redis, the rules that hold.

Of the rules only what they bar is in a rail: pins, caps and weights are applied when it is served, by those
that hold by then.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from redis import Redis

from feature_repo.assemble.orders import best
from feature_repo.online.connection import beside_requests
from feature_repo.online.newborns import NewbornParams
from feature_repo.params import load, root
from feature_repo.ports import redis_url
from pipelines.rails.audience import Seen, contexts
from pipelines.surfaces.due import EmailParams, due
from serving import pipeline
from serving.live.online_features import OnlineFeatures
from serving.rails.rail import SHARED, Rail, RailParams, Shared, cohort_of, decode, encode, key_of, stale
from serving.release import bundle, state
from serving.rules.rulebook import Rulebook
from serving.stages.bestsellers import WEIGHED
from serving.stages.eligibility import on_sale
from serving.stages.steering import UNSTEERED, Steering
from serving.types import NO_ROWS, Context, Request, VisitorRows


class Maker:
    """One release over one Redis; its connections live in one event loop."""

    def __init__(self, redis: Redis, params: RailParams) -> None:
        """Raises RolloutError before the first promotion, BundleError for a damaged release."""
        self._redis, self._params = redis, params
        self._email = load("email", EmailParams)
        self.release = bundle.load(root() / state.present(redis).champion.path)
        self._space = self.release.manifest["space"]
        most = load("newborns", NewbornParams).most
        self.features = OnlineFeatures(redis_url(), self.release.models.ids, self._space, most)
        self.features.load_items()
        self._rules = Rulebook(beside_requests(redis_url()), lambda: [self.features.matrix])
        self._runner = asyncio.Runner()

    def refresh(self) -> None:
        """Prices, stock, counts and rules of this moment."""
        self.features.refresh()
        self._runner.run(self._rules.poll())

    def shoppers(self, found: Sequence[tuple[str, Seen]]) -> Iterator[int]:
        """Make and write a rail each, unless there is one that is as good; the bytes written, 0 for none."""
        for name, who in found:
            now = time.time_ns() // 1000
            rows = self._runner.run(self.features.read(who.user_id, who.session_id, now))
            held: Any = self._redis.get(key_of(name))
            if held and self._as_good(decode(held), rows, now):
                yield 0
                continue
            raw = encode(self._rail(who, rows, now))
            self._redis.set(key_of(name), raw, ex=round(self._params.max_age_s))
            yield len(raw)

    def shared(self) -> Shared:
        """Make and write the rails of cohorts and categories."""
        now, surfaces = time.time_ns() // 1000, self._params.shared_surfaces
        cohorts: dict[str, dict[str, list[str]]] = {surface: {} for surface in surfaces}
        for context in contexts(self._redis, self._params.cohorts):
            for surface in surfaces:
                request = Request(surface, context=context, limit=self._params.length)
                cohorts[surface][cohort_of(context)] = self._list(request, NO_ROWS, now)
        made = Shared(now, self.release.digest, cohorts, dict(self._categories(now)))
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(SHARED, mapping={"at_us": now, "rails": encode(made)})
            pipe.expire(SHARED, round(self._params.max_age_s))
            pipe.execute()
        return made

    def _as_good(self, held: Rail, rows: VisitorRows, now: int) -> bool:
        """Whether a rail holds all that is known, and will be young enough until the round after the next."""
        age_s = self._params.max_age_s - 2 * self._params.every_s
        newest = max(rows.user_ts, rows.session_ts)
        return newest <= held.at_us and stale(held, self.release.digest, now, age_s) is None

    def _rail(self, who: Seen, rows: VisitorRows, now: int) -> Rail:
        length, lists, mails = self._params.length, {}, {}
        for surface in self._params.shopper_surfaces:
            asked = Request(surface, who.user_id, who.session_id, limit=length)
            lists[surface] = self._list(asked, rows, now)
        if who.user_id and rows.user:
            one = due(now, who.user_id, rows.user, rows.session, self._email)
            if one:
                cart, page = ((), one.items) if one.surface != "email_abandoned_cart" else (one.items, ())
                asked = Request(one.surface, who.user_id, who.session_id, page, cart, limit=length)
                mails[one.surface] = list(one.items), self._list(asked, rows, now)
        return Rail(now, self.release.digest, lists, mails)

    def _list(self, request: Request, rows: VisitorRows, now: int) -> list[str]:
        visitor = pipeline.visitor_of(request, now, rows.user, rows.session)
        matrix, steering = self.features.matrix, self._steering(request, now)
        slots = pipeline.recommend(request, self.release, visitor, matrix, steering).slots
        return [slot.item_id for slot in slots]

    def _steering(self, request: Request, now: int) -> Steering:
        found = self._rules.steering(request, self.features.matrix, now)
        if found.allowed is None:
            return UNSTEERED
        return replace(found, factor=None, by=None, caps=(), pins=())

    def _categories(self, now: int) -> Iterator[tuple[str, list[str]]]:
        """Path -> its bestsellers in the order of the release, of the paths with most contacts."""
        matrix = self.features.matrix
        popular = matrix.popularity()
        within: dict[str, list[int]] = {}
        for code, path in enumerate(matrix.categories):
            while path:
                within.setdefault(path, []).append(code)
                path = path.rpartition("/")[0]
        sums = np.bincount(matrix.category, popular, len(matrix.categories))
        paths = sorted(within, key=lambda path: (-sums[within[path]].sum(), path))
        for path in paths[: self._params.categories]:
            inside = np.zeros(len(matrix.categories), np.bool_)
            inside[within[path]] = True
            rows = np.flatnonzero(inside[matrix.category])
            rows = rows[on_sale(matrix, now, rows)]
            rows = rows[best(popular[rows], WEIGHED)]
            context = Context(category=path)
            request = Request("category_sort", items=tuple(matrix.ids[row] for row in rows), context=context)
            visitor = pipeline.visitor_of(replace(request, items=()), now, None, None)
            steering = self._steering(request, now)
            slots = pipeline.reorder(request, self.release, visitor, matrix, steering).slots
            if slots:
                yield path, [slot.item_id for slot in slots[: self._params.length]]
