"""Products: search; of one product what it was shown and got, its live row, and why a list has it or not."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow.parquet as pq
from redis import Redis

from feature_repo.events import SURFACES
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.stored import ITEM_ACTIVITY
from feature_repo.params import root
from monitoring.experiment.tail import Tail
from monitoring.inquiry.acquaintance import Rows, asked_for, facts, require
from monitoring.inquiry.explainer import explain
from monitoring.pages.desk import Asked, Desk
from serving.release import state

COUNTED = {"click": "clicks", "add_to_cart": "carts", "purchase_completed": "buys"}
MOST_COUNTED = 1_000_000  # products; ids come from outside
FOUND = 40  # products of a search


class Counts:
    """What each product was shown and got, by the logs as far as they are kept; read on at every look."""

    def __init__(self, redis: Redis) -> None:
        self._tail, self._turn = Tail(redis), threading.Lock()
        self._counts: dict[str, Counter[str]] = {}

    def of(self, *items: str) -> list[Counter[str]]:
        """impressions, clicks, carts, buys of each."""
        with self._turn:
            self._tail.feed(self)
            return [Counter(self._counts.get(item, {})) for item in items]

    def update(self, exposures: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]]) -> None:
        """As Tail hands it over."""
        for exposure in exposures:
            for item in exposure["items"]:
                self._count(item, "impressions")
        for event in events:
            if (what := COUNTED.get(event["type"])) and event.get("item_id"):
                self._count(event["item_id"], what)

    def _count(self, item: str, what: str) -> None:
        if item in self._counts or len(self._counts) < MOST_COUNTED:
            self._counts.setdefault(item, Counter())[what] += 1


class Shelves:
    """The catalogue of the release that serves, for searching: another release, another catalogue."""

    def __init__(self, redis: Redis) -> None:
        self._redis, self._digest = redis, ""
        self._lines: list[tuple[str, str, str, str]] = []

    def found(self, text: str) -> list[tuple[str, str, str]]:
        """(item, title, category) of at most FOUND products with every word in them; an id comes first."""
        release = state.present(self._redis).champion
        if release.digest != self._digest:
            names = ["item_id", "title", "category_path"]
            table = pq.read_table(root() / release.path / "catalogue.parquet", columns=names)
            lines = zip(*(table[name].to_pylist() for name in names), strict=True)
            self._lines = [(i, t or "", c or "", f"{i} {t} {c}".casefold()) for i, t, c in lines]
            self._digest = release.digest
        words = text.casefold().split()
        hits = [line[:3] for line in self._lines if all(word in line[3] for word in words)]
        return sorted(hits, key=lambda line: line[0].casefold() != text.casefold())[:FOUND]


def gather(desk: Desk, asked: Asked) -> Mapping[str, Any]:
    """What is found, each with what it was shown and got."""
    text = asked.query.get("q", "").strip()[:200]
    shelves, counts = desk.once(Shelves, lambda: Shelves(desk.redis)), _counts(desk)
    lines = shelves.found(text)
    got = counts.of(*(item for item, _, _ in lines))
    found = [(*line, one) for line, one in zip(lines, got, strict=True)]
    return {"q": text, "found": found, "most": FOUND}


def product(desk: Desk, asked: Asked) -> Mapping[str, Any]:
    """One product, and why the list of a surface for a shopper has it or not."""
    query = asked_for(asked)
    item = query["item_id"]
    require("item_id", item)
    rows = desk.once(Rows, lambda: Rows(desk))
    said, done = rows.of(ITEM_CATALOGUE, [item])[0], rows.of(ITEM_ACTIVITY, [item])[0]
    told = explain(query, item)
    return {
        "query": query | {"surface": told["surface"]},
        "surfaces": SURFACES,
        "item": item,
        "said": facts(ITEM_CATALOGUE, said[1]) if said else [],
        "title": (said[1]["title"] if said else None) or item,
        "done": facts(ITEM_ACTIVITY, done[1]) if done else [],
        "done_ts": done[0] if done else 0,
        "counts": _counts(desk).of(item)[0],
        "told": told,
        "one": next((one for one in told["items"] if one["item_id"] == item), told["asked"][0]),
        "fell": told["asked"][0],
    }


def _counts(desk: Desk) -> Counts:
    return desk.once(Counts, lambda: Counts(desk.redis))
