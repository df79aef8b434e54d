"""Traffic on a running shop while something is done to it: shoppers who ask, and what they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from shops.faults import BATCH, ITEMS, Client
from shops.keeper import SOON_S, Keeper
from shops.merchandiser import mixed

from feature_repo.clock import instant

LIMIT = 12
TRACKED = {
    "product_viewed": "Product Viewed",
    "add_to_cart": "Product Added",
    "remove_from_cart": "Product Removed",
}
ASK_S = 0.04  # between two questions of one asker: 25 a second
PAGES = 0.2  # of the questions are for whole pages
SURFACES = ("pdp_fbt", "similar_items", "cart_upsell")
POST_S = 0.12  # between two batches of one visitor: 160 events a second


@dataclass
class Asker:
    """Asks for lists at its rhythm and notes what came back; `now` may be late, the rhythm is kept."""

    url: str
    seed: int
    full: int = 0
    pages: int = 0
    unanswered: list[tuple[float, str]] = field(default_factory=list)  # when, what the connection said
    wrong: list[tuple[float, str]] = field(default_factory=list)  # when, an answer that may not be
    mixed: list[str] = field(default_factory=list)  # of two sets of rules, or a product twice on a page
    late: list[tuple[float, float, str]] = field(default_factory=list)  # when, since when an item was gone
    gone_asked: int = 0  # answers while something was gone for longer than SOON_S
    served_from: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    keepers: Sequence[Keeper] = ()

    def run(self, enough: threading.Event) -> None:
        rng, due = np.random.default_rng(self.seed), time.monotonic()
        with httpx.Client(base_url=self.url, timeout=10) as http:
            while not enough.is_set():
                due = max(due + ASK_S, time.monotonic() - 1)
                time.sleep(max(0.0, due - time.monotonic()))
                ask = self.ask_a_page if rng.random() < PAGES else self._ask
                ask(http, int(rng.integers(0, 500)), int(rng.integers(0, 60)))

    def _ask(self, http: httpx.Client, visit: int, item: int) -> None:
        body = {"surface": "homepage_hero", "session_id": f"asker {visit}", "limit": LIMIT}
        body |= {"items": [f"item-{item}"]} if visit % 2 else {}
        began = time.monotonic()
        try:
            answer = http.post("/v1/recommend", json=body)
        except httpx.TransportError as error:
            self.unanswered.append((began, type(error).__name__))
            return
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        try:
            told: dict[str, Any] = answer.json()
        except ValueError:
            told = {}
        self._look(told.get("items", []), began)
        listed = [slot["item_id"] for slot in told.get("items", [])]
        if answer.status_code == 200 and len(set(listed)) == len(listed) == LIMIT:
            self.full += 1
            self.served_from[told["served_from"]] = self.served_from.get(told["served_from"], 0) + 1
        else:
            self.wrong.append((began, f"{answer.status_code} {len(listed)} {answer.text[:200]}"))

    def ask_a_page(self, http: httpx.Client, visit: int, item: int) -> None:
        """Four lists; a product may stand in one of them alone, and one set of rules holds for all."""
        beside = {"items": [f"item-{item}"]}
        shelves = [{"surface": "homepage_hero"}, *({"surface": name} | beside for name in SURFACES)]
        body = {"session_id": f"asker {visit}", "surfaces": [one | {"limit": 6} for one in shelves]}
        began = time.monotonic()
        try:
            answer = http.post("/v1/page", json=body)
        except httpx.TransportError as error:
            self.unanswered.append((began, type(error).__name__))
            return
        if answer.status_code != 200:
            self.wrong.append((began, f"{answer.status_code} 0 {answer.text[:200]}"))
            return
        slots = [slot for one in answer.json()["surfaces"] for slot in one["items"]]
        listed = [slot["item_id"] for slot in slots]
        if len(set(listed)) < len(listed) or f"item-{item}" in listed:
            self.mixed.append(f"a page with a product twice, or its own: {item}, {listed}")
        self.pages += 1
        self._look(slots, began)

    def _look(self, slots: list[dict[str, Any]], began: float) -> None:
        """Whether two sets of rules made it, and whether it holds what was gone when it was asked for."""
        if found := mixed(slots):
            self.mixed.append(found)
        shown = {slot["item_id"] for slot in slots}
        for keeper in self.keepers:
            gone = {item: since for item, since in tuple(keeper.gone.items()) if since + SOON_S < began}
            self.gone_asked += bool(gone)
            for item in shown & gone.keys():
                if keeper.gone.get(item) == gone[item]:  # it was not said to be back meanwhile
                    self.late.append((began, gone[item], item))


class Visitor(Client):
    """Posts what its shoppers do with items of the catalogue, at its rhythm.

    Fewer items than a shopper's lists hold: what was pushed out of a full list depends on the order in which
    the events of two visits are applied, and here every row is compared.
    """

    def _event(self, rng: np.random.Generator, number: int) -> dict[str, Any]:
        return super()._event(rng, number) | {"item_id": f"item-{rng.integers(0, ITEMS)}"}

    def run(self, enough: threading.Event) -> None:
        rng = np.random.default_rng(self.seed)
        try:
            with httpx.Client(base_url=self.shop.url, timeout=3) as http:
                while not enough.is_set():
                    batch = [self._event(rng, len(self.accepted) + i) for i in range(BATCH)]
                    self._post(http, batch)
                    self.accepted += batch
                    time.sleep(POST_S)
        except BaseException as error:
            self.error = error


class SegmentVisitor(Visitor):
    """The same through another system's door: Segment's calls, whose ids make a retry count once."""

    def _event(self, rng: np.random.Generator, number: int) -> dict[str, Any]:
        event = super()._event(rng, number)
        kind = event["type"] if event["type"] in TRACKED else "product_viewed"
        user = event["user_id"] or event["session_id"]  # their device stands for a shopper without a name
        return event | {"type": kind, "user_id": user, "position": None}

    def _send(self, http: httpx.Client, batch: list[dict[str, Any]]) -> bool:
        calls = [
            {
                "type": "track",
                "event": TRACKED[event["type"]],
                "messageId": event["event_id"],
                "anonymousId": event["session_id"],
                "userId": event["user_id"],
                "timestamp": instant(event["event_ts"]).isoformat(),
                "properties": {"product_id": event["item_id"]},
            }
            for event in batch
        ]
        answer = http.post("/compat/segment/v1/batch", json={"batch": calls})
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200
