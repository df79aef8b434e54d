"""Live events of a small shop, the consumer that applies them, and the rows that must follow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis
from small_shop import ITEMS, as_event, open_home, random_events

from feature_repo.aggregates import FOLDS
from feature_repo.online import OnlineView, read_rows
from feature_repo.params import load
from pipelines.stream import EVENTS, Consumer, StreamParams

LIVE = random_events(seed=21, count=600, days=1.5)  # no visit pauses for longer than its row may be old
KEYS = {
    "user_history": [f"user {i}" for i in range(7)],
    "session_context": [f"session {i}" for i in range(20)],
    "item_activity": ITEMS,
}


def open_shop(folder: Path, patch: pytest.MonkeyPatch, redis_url: str) -> Iterator[Any]:
    """The shop's Redis, with ENDCAP_HOME at `folder`."""
    open_home(folder, patch)
    patch.setenv("REDIS_URL", redis_url)
    with Redis.from_url(redis_url) as client:
        yield client


def consumer(redis: Any, name: str = "one", **changed: Any) -> Consumer:
    """A consumer of params.yaml's `stream`, with short waits and what is `changed`."""
    params = replace(load("stream", StreamParams), block_ms=10, batch=64, lease_ms=1_000)
    return Consumer(redis, "endcap", replace(params, **changed), name)


def post(redis: Any, events: list[dict[str, Any]]) -> None:
    """Appends `events` to the stream, as the ingress does."""
    for event in events:
        redis.xadd(EVENTS, {"event": orjson.dumps(event)})


def rows(redis: Any) -> dict[tuple[str, str], Any]:
    """(view, entity) -> (ts, row) of everything that is stored."""
    found = {}
    for fold in FOLDS:
        keys = KEYS[fold.name]
        for key, held in zip(keys, read_rows(redis, OnlineView(fold, "endcap"), keys), strict=True):
            if held:
                found[fold.name, key] = held
    return found


def folded(events: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    """What `rows` must find, by the folds alone, in the order of `events`."""
    found: dict[tuple[str, str], Any] = {}
    for fold in FOLDS:
        for key in KEYS[fold.name]:
            state, ts = fold.new(), 0
            for event in map(as_event, events):
                if event.type in fold.types and getattr(event, fold.key) == key:
                    state, ts = fold.step(state, event), max(ts, event.ts)
            if ts:
                found[fold.name, key] = (ts, fold.row(state))
    return found
