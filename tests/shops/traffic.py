"""Traffic on a running shop while something is done to it: shoppers who ask, and what they do."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from shops.faults import BATCH, ITEMS, Client

LIMIT = 12
ASK_S = 0.04  # between two questions of one asker: 25 a second
POST_S = 0.12  # between two batches of one visitor: 160 events a second


@dataclass
class Asker:
    """Asks for lists at its rhythm and notes what came back; `now` may be late, the rhythm is kept."""

    url: str
    seed: int
    full: int = 0
    unanswered: list[tuple[float, str]] = field(default_factory=list)  # when, what the connection said
    wrong: list[tuple[float, str]] = field(default_factory=list)  # when, an answer that may not be
    served_from: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0

    def run(self, enough: threading.Event) -> None:
        rng, due = np.random.default_rng(self.seed), time.monotonic()
        with httpx.Client(base_url=self.url, timeout=10) as http:
            while not enough.is_set():
                due = max(due + ASK_S, time.monotonic() - 1)
                time.sleep(max(0.0, due - time.monotonic()))
                self._ask(http, int(rng.integers(0, 500)), int(rng.integers(0, 60)))

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
        listed = [slot["item_id"] for slot in told.get("items", [])]
        if answer.status_code == 200 and len(set(listed)) == len(listed) == LIMIT:
            self.full += 1
            self.served_from[told["served_from"]] = self.served_from.get(told["served_from"], 0) + 1
        else:
            self.wrong.append((began, f"{answer.status_code} {len(listed)} {answer.text[:200]}"))


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
