"""Whoever keeps the catalogue of a running shop while something is done to it, and what must come of it.

A keeper has items of its own: some that the release knows, and some that it makes up. What it says of them is
posted until it is accepted; what was accepted stands in the rows, and once in the log, whatever befell.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow.parquet as pq
from shops.stream import wait_until

from feature_repo.clock import micros
from feature_repo.eventlog.keys import SAID
from feature_repo.features.catalogue import ITEM_CATALOGUE
from feature_repo.features.words import DELETED, FIELDS, Words, deleted, newest, row_of, tell
from feature_repo.offline import item_log
from feature_repo.online import newborns
from feature_repo.online.lifetimes import LISTED
from feature_repo.online.listings import read_words
from feature_repo.online.rows import OnlineView
from feature_repo.params import root
from feature_repo.ports import CATALOGUE, token
from serving.release import bundle, state

SAY_S = 0.25  # between two posts of one keeper
PATIENCE_S = 120.0  # until a change is accepted
SOON_S = 1.0  # then what was sold out or deleted stands in no answer
VIEW = OnlineView(ITEM_CATALOGUE)


@dataclass
class Keeper:
    """Says something of one to three of its items at its rhythm, each word at an instant of its own."""

    url: str
    key: str
    prefix: str
    seed: int
    known: Sequence[str] = ()  # items of the release that are this keeper's alone
    births: int = 12  # items that it makes up
    said: dict[str, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)  # what was accepted
    gone: dict[str, float] = field(default_factory=dict)  # not to be sold since then (monotonic)
    kinds: Counter[str] = field(default_factory=Counter)
    resent: int = 0
    error: BaseException | None = None
    _ts: int = 0

    def run(self, enough: threading.Event) -> None:
        rng = np.random.default_rng(self.seed)
        try:
            with httpx.Client(base_url=self.url, timeout=3) as http:
                while not enough.is_set():
                    self.say(http, rng)
                    time.sleep(SAY_S)
        except BaseException as error:
            self.error = error

    def say(self, http: httpx.Client, rng: np.random.Generator) -> None:
        """One post, until it is accepted."""
        items = [*self.known, *(f"{self.prefix} {i}" for i in range(self.births))]
        changes = {str(item): self._change(str(item), rng) for item in rng.choice(items, 3)}
        for item, change in changes.items():
            if change.get("stock") != 0 and not change.get(DELETED):
                self.gone.pop(item, None)  # it may stand in an answer as soon as this is said
        self._post(http, [{"item_id": item, **change} for item, change in changes.items()])
        accepted = time.monotonic()
        for item, change in changes.items():
            ts, fields = change["event_ts"], {n: v for n, v in change.items() if n != "event_ts"}
            self.said.setdefault(item, []).append((ts, {DELETED: False} | fields))
            if fields.get("stock") == 0 or fields.get(DELETED):
                self.gone.setdefault(item, accepted)

    def _change(self, item: str, rng: np.random.Generator) -> dict[str, Any]:
        self._ts = max(time.time_ns() // 1000, self._ts + 1)
        price, at = round(float(rng.uniform(1, 99)), 2), {"event_ts": self._ts}
        kind = str(rng.choice(["price", "sold out", "deleted", "restocked"], p=[0.5, 0.2, 0.1, 0.2]))
        if item not in self.said and item not in self.known:
            kind = "born"
        self.kinds[kind] += 1
        return (
            at
            | {
                "price": {"price": price, "stock": 7},
                "restocked": {"stock": int(rng.integers(1, 50))},
                "sold out": {"stock": 0},
                "deleted": {DELETED: True},
                "born": {
                    "title": f"{item} of steel",
                    "category_path": f"Home/Bags/Kind {rng.integers(0, 9)}",
                    "brand": "brand 1",
                    "price": price,
                    "stock": 7,
                },
            }[kind]
        )

    def _post(self, http: httpx.Client, items: list[dict[str, Any]]) -> None:
        headers, deadline = {"authorization": f"Bearer {self.key}"}, time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = http.post("/v1/items", json={"items": items}, headers=headers)
                if answer.status_code == 202:
                    assert answer.json()["rejected"] == [], answer.text
                    return
                assert answer.status_code == 503, answer.text
            except httpx.TransportError:
                pass
            self.resent += 1
            assert time.monotonic() < deadline, "no answer for a long time"
            time.sleep(0.1)

    def words(self) -> dict[str, Words]:
        """What must be known of each item of which something was said: its live words."""
        found: dict[str, Words] = {}
        for item, told in self.said.items():
            for ts, fields in sorted(told, key=lambda one: one[0]):
                tell(found.setdefault(item, {}), ts, fields)
        return found


def assert_kept(redis: Any, home: Path, keepers: Iterable[Keeper]) -> None:
    """Every accepted change stands in the row and in the log, and was applied once.

    Whoever calls has waited until the consumers were through.
    """
    wait_until(lambda: redis.xlen(SAID) == 0, 60)  # all is written down
    for keeper in keepers:
        if keeper.error:
            raise keeper.error
        expected = keeper.words()
        items = sorted(expected)
        for item, (held, live) in zip(items, read_words(redis, VIEW, items), strict=True):
            assert live and expected[item].items() <= held.items(), (item, expected[item], held)
            assert newest(held) == newest(expected[item]) and row_of(held)["stock"] is not None, item
            assert bool(redis.sismember(LISTED, item)) == (not deleted(held)), item
        _assert_logged(home, keeper)


def _assert_logged(home: Path, keeper: Keeper) -> None:
    files = list((home / "data/logs/items").glob("*.parquet"))
    notes = [note for file in files for note in pq.read_table(file, schema=item_log.SCHEMA).to_pylist()]
    entries: dict[tuple[Any, ...], set[str]] = {}
    for note in notes:
        entries.setdefault((note["item_id"], note["event_ts"], note["created_ts"], note["said"]), set()).add(
            note["entry"]
        )
    twice = [content for content, found in entries.items() if len(found) > 1]
    assert not twice, f"applied more than once: {twice[:3]}"
    logged = {(item, micros(ts), _plain(orjson.loads(said))) for item, ts, _, said in entries}
    accepted = {(item, ts, _plain(fields)) for item, told in keeper.said.items() for ts, fields in told}
    assert accepted, "nothing was said"
    assert not accepted - logged, f"accepted, and not in the log: {sorted(accepted - logged)[:3]}"


def _plain(fields: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, value) for name, value in fields.items() if name in FIELDS))


def keepers_of(url: str, count: int, seed: int, known: int = 40, until: int = 60) -> list[Keeper]:
    """Keepers of the running shop; the release's items from `known` on are theirs."""
    key = token(CATALOGUE) or ""
    own = [f"item-{i}" for i in range(known, until)]
    return [Keeper(url, key, f"kept {seed} {i}", 1000 * seed + i, own[i::count]) for i in range(count)]


def assert_embedded(redis: Any, keepers: Iterable[Keeper], seconds: float = 30) -> None:
    """What is listed and new to the champion has a vector in its space, and nothing else of theirs has."""
    manifest = bundle.verify(root() / state.present(redis).champion.path)
    made_up = {item for keeper in keepers for item in keeper.said if item not in keeper.known}
    listed = {item for item in made_up if redis.sismember(LISTED, item)}
    wait_until(lambda: made_up & set(newborns.names(redis, manifest["space"])) == listed, seconds)
    assert listed
