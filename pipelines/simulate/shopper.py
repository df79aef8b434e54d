"""One live shopper's session: ask, look, click by the truth of the world, report, perhaps ask again."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
import numpy as np
import orjson

from pipelines.simulate.observed import Observed
from pipelines.simulate.world import Context, World


@dataclass(frozen=True)
class Manners:
    """How shoppers behave at the endpoint; section `shoppers` of params.yaml."""

    seconds_between: float
    concurrency: int
    timeout_s: float
    max_pages: int
    product_page_share: float
    return_share: float


class Shopper:
    """One person in one session at the endpoint."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        world: World,
        rng: np.random.Generator,
        session_id: str,
        now: datetime,
        manners: Manners,
        observed: Observed,
    ) -> None:
        people = world.shoppers
        known = len(people.user_ids)
        if rng.random() < world.population.anonymous_share and known < len(people.budget):
            self.person = int(rng.integers(known, len(people.budget)))
        else:
            self.person = int(rng.choice(known, p=people.activity / people.activity.sum()))
        leaf, style = world.intents(np.array([self.person]), np.array([world.day(now)]), rng)
        self.leaf, self.style = int(leaf[0]), int(style[0])
        self.client, self.world, self.rng, self.manners, self.observed = client, world, rng, manners, observed
        self.session_id, self.user_id, self.now = session_id, people.user_id(self.person), now
        self.place = {
            "device": str(people.device[self.person]),
            "country": str(people.country[self.person]),
            "channel": str(world.channels(np.array([self.person]), rng)[0]),
        }
        self.focus = -1
        self.cart: list[int] = []
        self.sent = 0

    async def run(self) -> None:
        """Homepage first; after a click perhaps the product's page, else perhaps the homepage again."""
        surface = "homepage_hero"
        for page in range(self.manners.max_pages):
            answer = await self._recommend(surface)
            if answer is None:
                return
            events, clicked = self._browse(surface, answer)
            to_product = clicked and self.rng.random() < self.manners.product_page_share
            stays = to_product or self.rng.random() < self.manners.return_share
            stays = stays and page + 1 < self.manners.max_pages
            if not stays:
                events += self._checkout()
            if not await self._report(events, wait=stays) or not stays:
                return
            surface = "pdp_fbt" if to_product else "homepage_hero"

    async def _recommend(self, surface: str) -> dict[str, Any] | None:
        """The endpoint's answer, None where it failed."""
        body: dict[str, Any] = {
            "surface": surface,
            "session_id": self.session_id,
            "context": self.place,
            "as_of": self.now.isoformat(),
        }
        if self.user_id is not None:
            body["user_id"] = self.user_id
        if surface == "pdp_fbt":
            body["items"] = [str(self.world.shop.item_ids[self.focus])]
        asked = time.perf_counter()
        answer = await self._post("/v1/recommend", body, expected=200)
        if answer is not None:
            self.observed.latencies_ms.append(1e3 * (time.perf_counter() - asked))
        return answer

    async def _report(self, events: list[dict[str, Any]], *, wait: bool) -> bool:
        """Send what happened in one batch; with `wait` the answer comes when it is in the features."""
        path = "/v1/events?wait=1" if wait else "/v1/events"
        answer = await self._post(path, {"events": events}, expected=202)
        if answer is not None:
            self.observed.rejected_events += len(answer["rejected"])
        return answer is not None

    async def _post(self, path: str, body: dict[str, Any], *, expected: int) -> dict[str, Any] | None:
        self.observed.requests += 1
        try:
            response = await self.client.post(
                path, content=orjson.dumps(body), headers={"content-type": "application/json"}
            )
        except httpx.HTTPError:
            self.observed.failures += 1
            return None
        if response.status_code != expected:
            self.observed.failures += 1
            return None
        return orjson.loads(response.content)

    def _browse(self, surface: str, answer: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        """Look at the slots from the first on, click by the truth: (events, whether anything was clicked)."""
        ids = [entry["item_id"] for entry in answer["items"]]
        rows = np.array([self.world.row.get(item, -1) for item in ids], dtype=int)
        positions = np.arange(1, len(rows) + 1)
        context = Context(surface, self.leaf, self.style, self.focus, self.world.day(self.now))
        chance = self.world.click_probability(self.person, rows, context) * self.world.examination(positions)
        clicked = np.flatnonzero(self.rng.random(len(rows)) < chance)
        shelf = {"surface": surface, "list_name": surface, "request_id": answer["request_id"]}
        places = [
            {**shelf, "item_id": entry["item_id"], "slot": entry["slot"], "position": int(position)}
            for entry, position in zip(answer["items"], positions, strict=True)
        ]
        events = [self._event("impression", place) for place in places]
        for slot in clicked:
            self._wait(20)
            row, place = int(rows[slot]), places[slot]
            events += [self._event("click", place), self._event("product_viewed", place)]
            self.focus = row
            likes = self.world.cart_probability(self.person, np.array([row]), context)[0]
            if row not in self.cart and self.rng.random() < likes:
                self._wait(10)
                self.cart.append(row)
                events.append(self._event("add_to_cart", {**place, "quantity": 1}))
        who, day = self.user_id or self.session_id, self.now.date()
        self.observed.listed(answer["arm"], len(rows), len(clicked), who, day)
        self._wait(30 if len(clicked) else 8)  # as long as the recorded shoppers look at a page
        return events, len(clicked) > 0

    def _checkout(self) -> list[dict[str, Any]]:
        """The cart is ordered as a whole or left behind; its last item decides how likely."""
        if not self.cart:
            return []
        context = Context("search", self.leaf, self.style, self.focus, self.world.day(self.now))
        likely = self.world.order_probability(self.person, np.array([self.cart[-1]]), context)[0]
        if self.rng.random() >= likely:
            return []
        self._wait(90)
        bought = [{"item_id": str(self.world.shop.item_ids[row]), "quantity": 1} for row in self.cart]
        return [self._event("purchase_completed", line) for line in bought]

    def _event(self, kind: str, place: Mapping[str, Any]) -> dict[str, Any]:
        self.sent += 1
        row = self.world.row.get(place["item_id"])
        event = {
            "event_id": f"{self.session_id}-{self.sent}",
            "event_ts": self.now.isoformat(),
            "type": kind,
            "user_id": self.user_id,
            "session_id": self.session_id,
            "price": None if row is None else float(self.world.shop.price[row]),
            "consent": bool(self.world.shoppers.consent[self.person]),
        }
        return {**event, **self.place, **place}

    def _wait(self, median_s: float) -> None:
        """Simulated time passes: log-normal with this median."""
        self.now += timedelta(seconds=float(self.rng.lognormal(np.log(median_s), 0.5)))
