"""Live events of a small shop, the consumers that apply them, and the rows that must follow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis
from shops.small import ITEMS, as_event, open_home, random_events

from feature_repo.eventlog.keys import APPLIED, GROUPS, StreamParams, partition_of, stream_keys
from feature_repo.eventlog.lua import append
from feature_repo.eventlog.open import open_log
from feature_repo.features.stored import FOLDS
from feature_repo.online.rows import OnlineView, read_rows
from feature_repo.params import load
from feature_repo.persons.pseudonyms import Persons
from pipelines.stream.apply import FOLDS_BY_NAME, Entity, Held, apply, unstored, wanted
from pipelines.stream.consumer import Consumer
from pipelines.stream.members import tasks
from pipelines.stream.worker import Worker


def live_events() -> list[dict[str, Any]]:
    """Random events, of which no two visits share an instant: there the order of arrival would decide."""
    events = random_events(seed=21, count=600, days=1.5)
    for event in events:
        event["event_ts"] += int(event["session_id"].removeprefix("session "))
    return sorted(events, key=lambda event: (event["event_ts"], event["event_id"]))


LIVE = live_events()
KEYS = {
    "user_history": [f"user {i}" for i in range(7)],
    "session_context": [f"session {i}" for i in range(20)],
    "item_activity": ITEMS,
}
PARTITIONS = 4  # as params.yaml has it

Rows = dict[Entity, tuple[int, dict[str, Any]]]


def open_shop(folder: Path, patch: pytest.MonkeyPatch, redis_url: str) -> Iterator[Any]:
    """The shop's Redis, with ENDCAP_HOME at `folder`."""
    open_home(folder, patch)
    patch.setenv("REDIS_URL", redis_url)
    with Redis.from_url(redis_url) as client:
        yield client


def stream_params(**changed: Any) -> StreamParams:
    """params.yaml's `stream`, with short waits and what is `changed`."""
    params = replace(load("stream", StreamParams), block_ms=10, batch=64, lease_ms=1_000)
    return replace(params, **changed)


def consumer(name: str = "one", url: str | None = None, **changed: Any) -> Consumer:
    """A consumer of the Redis at `url`, else of the shop's."""
    where = url or os.environ["REDIS_URL"]
    return Consumer(lambda: Redis.from_url(where), stream_params(**changed), name)


def worker(redis: Any, task: str, name: str = "one", **changed: Any) -> Worker:
    """What works on one task, "items" or "visitors:<p>", without its thread."""
    params = stream_params(**changed)
    (found,) = [one for one in tasks(params.partitions) if one.name == task]
    return Worker(redis, found, params, name)


def post(redis: Any, events: Sequence[Mapping[str, Any]]) -> None:
    """Appends `events` to their partitions, as the ingress does."""
    with redis.pipeline(transaction=False) as pipe:
        for event in events:
            append(pipe, partition_of(event["session_id"], PARTITIONS), orjson.dumps(event))
        pipe.execute()


def behind(redis: Any) -> int:
    """Entries that the slower group has not applied."""
    return max(lag.events for lag in open_log(redis, stream_params()).lag().values())


def pending(redis: Any) -> int:
    """Entries that were read and not acknowledged, over all partitions and groups."""
    return sum(
        group["pending"]
        for key in stream_keys(PARTITIONS)
        if redis.exists(key)
        for group in redis.xinfo_groups(key)
    )


def started(redis: Any) -> bool:
    """True when both groups have applied something."""
    applied = {name.partition(b":")[0].decode() for name in redis.hkeys(APPLIED)}
    return applied == set(GROUPS)


def keys_of(events: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """View -> the entities that the events name."""
    return {fold.name: sorted({e[fold.key] for e in events if e[fold.key] is not None}) for fold in FOLDS}


def rows(redis: Any, entities: Mapping[str, list[str]] = KEYS) -> Rows:
    """(view, entity) -> (ts, row) of everything that is stored."""
    found: Rows = {}
    for fold in FOLDS:
        keys = entities[fold.name]
        for key, held in zip(keys, read_rows(redis, OnlineView(fold), keys), strict=True):
            if held:
                found[fold.name, key] = held
    return found


def folded(events: Sequence[Mapping[str, Any]], entities: Mapping[str, list[str]] = KEYS) -> Rows:
    """What `rows` must find, by the folds alone, in the order of `events`."""
    states: dict[Entity, Held] = {}
    taken = [as_event(dict(event)) for event in events]
    while missing := wanted(FOLDS, states, taken):
        states.update({entity: unstored(entity) for entity in missing})
    changed = apply(FOLDS, states, taken)
    return {
        entity: (held.ts, FOLDS_BY_NAME[entity[0]].row(held.state))
        for entity, held in changed.items()
        if entity[1] in entities[entity[0]]
    }


def as_stored(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was posted, by the ids that the stores know: pseudonyms by the key of the tests."""
    shop = Persons(os.environ["ENDCAP_PERSON_KEY"].encode())
    found = [dict(event) for event in events]
    for event in found:
        shop.enter(event)
    return found


def assert_same(found: Rows, expected: Rows) -> None:
    """Equal rows; decayed counts to 12 digits, for they are added up in the order of arrival."""
    assert set(found) == set(expected)
    wrong = []
    for entity, (ts, row) in expected.items():
        for name, value in {"ts": ts, **row}.items():
            close = pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
            if (held := {"ts": found[entity][0], **found[entity][1]}[name]) != close:
                wrong.append(f"{entity} {name}: {held!r}, not {value!r}")
    assert not wrong, "\n".join((f"{len(wrong)} values of {len(expected)} rows differ", *wrong[:30]))


def wait_until(true: Callable[[], Any], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
