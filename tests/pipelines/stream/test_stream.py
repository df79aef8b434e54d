"""Stream: live rows equal the backfill's, late events count, poison harms nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from shops.small import START, as_event, write_raw
from shops.stream import (
    KEYS,
    LIVE,
    assert_same,
    behind,
    consumer,
    folded,
    open_shop,
    pending,
    post,
    rows,
    stream_params,
)

from feature_repo.clock import instant
from feature_repo.errors import EventError, FeatureError, ParamsError
from feature_repo.eventlog.keys import APPLIED, DEAD, stream_key
from feature_repo.features.store import open_store
from feature_repo.features.stored import FOLDS, ITEM_ACTIVITY, SESSION_CONTEXT
from feature_repo.folds.fold import Fold
from feature_repo.offline.build import main as features
from feature_repo.online import changes
from feature_repo.online.rows import OnlineView
from pipelines.stream.apply import Held, PoisonError, apply, parse, touched, unstored, wanted
from pipelines.stream.materialize import materialize


@pytest.fixture
def redis(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from open_shop(tmp_path, monkeypatch, redis_url)


def test_streamed_rows_equal_the_folds_over_the_same_events(redis: Any) -> None:
    post(redis, LIVE)
    consumer().run(until_empty=True)
    assert_same(rows(redis), folded(LIVE))
    assert pending(redis) == behind(redis) == 0
    assert changes.applied_ts(redis) == LIVE[-1]["event_ts"]


def test_a_visit_s_events_stay_in_one_partition_and_partitions_share_the_visits(redis: Any) -> None:
    post(redis, LIVE)
    found: dict[str, set[int]] = {}
    for p in range(4):
        for _, fields in redis.xrange(stream_key(p)):
            found.setdefault(orjson.loads(fields[b"event"])["session_id"], set()).add(p)
    assert all(len(partitions) == 1 for partitions in found.values())
    assert set.union(*found.values()) == {0, 1, 2, 3}


def test_backfill_then_stream_equals_backfill_of_everything(redis: Any, tmp_path: Path) -> None:
    write_raw(tmp_path, LIVE)
    features()
    cut = LIVE[350]["event_ts"]
    materialize(redis, open_store(), instant(cut), 100, fresh=True)
    post(redis, [event for event in LIVE if event["event_ts"] >= cut])
    consumer(cached_states=5).run(until_empty=True)
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
    consumer().run(until_empty=True)
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
    consumer().run(until_empty=True)
    post(redis, [late])
    consumer().run(until_empty=True)
    ts, row = rows(redis)["session_context", "session 1"]
    assert (ts, row["views"], row["started_ts"]) == (early["event_ts"], 2, late["event_ts"])


def test_counts_do_not_depend_on_the_order_of_arrival(redis: Any) -> None:
    shuffled = [LIVE[i] for i in np.random.default_rng(3).permutation(len(LIVE))]
    post(redis, shuffled)
    consumer().run(until_empty=True)
    found, in_order = rows(redis), folded(LIVE)
    assert_same(
        {entity: held for entity, held in found.items() if entity[0] == ITEM_ACTIVITY.name},
        {entity: held for entity, held in in_order.items() if entity[0] == ITEM_ACTIVITY.name},
    )
    assert {entity: ts for entity, (ts, _) in found.items()} == {e: ts for e, (ts, _) in in_order.items()}


def test_an_event_that_stands_in_the_log_twice_counts_once(redis: Any) -> None:
    post(redis, [*LIVE[:100], *LIVE[40:60], *LIVE[90:100]])
    consumer(batch=16).run(until_empty=True)
    post(redis, LIVE[:100])
    consumer(batch=16).run(until_empty=True)
    assert_same(rows(redis), folded(LIVE[:100]))
    post(redis, [{**LIVE[99], "event_id": "another"}])
    consumer().run(until_empty=True)
    assert_same(rows(redis), folded([*LIVE[:100], LIVE[99]]))


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
    first = redis.xadd(stream_key(1), {"event": raw}).decode()
    redis.xadd(stream_key(2), {"unexpected": b"field"})
    post(redis, LIVE[30:60])
    consumer().run(until_empty=True)
    assert_same(rows(redis), folded(LIVE[:60]))
    letters = {fields[b"partition"]: fields for _, fields in redis.xrange(DEAD)}
    assert set(letters) == {b"1", b"2"} and redis.xlen(DEAD) == 2
    assert letters[b"1"][b"event"] == raw and letters[b"1"][b"reason"].decode().startswith(reason)
    assert letters[b"1"][b"position"].decode() == first
    assert pending(redis) == 0


def test_an_event_that_a_fold_cannot_take_is_put_aside_and_leaves_no_trace(
    redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursed = {**LIVE[0], "type": "product_viewed", "event_id": "cursed", "session_id": "cursed"}
    post(redis, [*LIVE[:40], cursed, *LIVE[40:60]])
    with monkeypatch.context() as patch:
        _break(patch, "cursed")
        consumer().run(until_empty=True)
    visitors = {entity: held for entity, held in rows(redis).items() if entity[0] != ITEM_ACTIVITY.name}
    expected = folded(LIVE[:60])
    assert_same(visitors, {entity: held for entity, held in expected.items() if entity in visitors})
    (letter,) = [fields for _, fields in redis.xrange(DEAD)]
    assert letter[b"reason"] == b"RuntimeError in session_context: a bug in the fold"
    assert letter[b"group"] == b"visitors"


def test_a_row_that_cannot_be_written_costs_the_event_that_made_it_and_no_other(
    redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OnlineView.encode

    def encode(self: OnlineView, row: Any, ts: int) -> dict[bytes, bytes]:
        if row.get("started_ts") == START - 1:
            raise FeatureError("session_context.started_ts: too long ago")
        return real(self, row, ts)

    monkeypatch.setattr(OnlineView, "encode", encode)
    bad = {**LIVE[0], "event_id": "bad", "event_ts": START - 1}
    post(redis, [*LIVE[:20], bad, *LIVE[20:30]])
    consumer().run(until_empty=True)
    (letter,) = [fields for _, fields in redis.xrange(DEAD)]
    assert letter[b"event"] == orjson.dumps(bad)
    assert letter[b"reason"] == b"session_context.started_ts: too long ago"
    visitors = {entity: held for entity, held in rows(redis).items() if entity[0] != ITEM_ACTIVITY.name}
    expected = folded(LIVE[:30])
    assert_same(visitors, {entity: expected[entity] for entity in visitors})


def test_a_row_of_before_a_list_was_declared_goes_on_with_its_other_parts(redis: Any) -> None:
    view = OnlineView(SESSION_CONTEXT)
    first = {
        **LIVE[0],
        "type": "product_viewed",
        "session_id": "session 1",
        "user_id": None,
        "item_id": "item 1",
    }
    post(redis, [first])
    consumer().run(until_empty=True)
    redis.hdel(
        view.key("session 1"), view.fields[[c.name for c in view.declared.columns].index("contact_kinds")]
    )
    post(redis, [{**first, "event_id": "login", "user_id": "user 1", "item_id": "item 2", "consent": True}])
    consumer().run(until_empty=True)
    row = rows(redis)["session_context", "session 1"][1]
    assert (row["views"], row["contact_items"], row["owner"]) == (2, ["item 2"], "user 1")
    assert not redis.exists(DEAD)


def _break(patch: pytest.MonkeyPatch, session: str) -> None:
    """The fold of visits cannot take events of `session`, and notices late."""
    real = type(SESSION_CONTEXT).step

    def breaks(self: Fold, state: Any, event: Any) -> Any:
        if self is SESSION_CONTEXT and event.session_id == session:
            state["views"] = 100
            raise RuntimeError("a bug in the fold")
        return real(self, state, event)  # type: ignore[arg-type]

    patch.setattr(type(SESSION_CONTEXT), "step", breaks)


def test_changed_items_are_announced_with_the_rows(redis: Any) -> None:
    post(redis, LIVE[:40])
    consumer().run(until_empty=True)
    expected = {e["item_id"] for e in LIVE[:40] if e["type"] in ITEM_ACTIVITY.types}
    seen, items, _ = changes.since(redis, changes.Seen(0, 0))
    assert set(items) == expected and seen.version >= 1
    assert changes.since(redis, seen) == (seen, [], [])


def test_apply_is_pure_and_names_the_event_that_it_cannot_take() -> None:
    events = [as_event(e) for e in LIVE[:20]]
    states: dict[tuple[str, str], Held] = {one: unstored(one) for one in wanted(FOLDS, {}, events)}
    changed = apply(FOLDS, states, events)
    assert set(changed) == {entity for event in events for entity in touched(FOLDS, event)}
    bad = events[5]._replace(position="first", type="impression")  # type: ignore[arg-type]
    many = [*events[:5], bad]
    with pytest.raises(PoisonError) as caught:
        apply(FOLDS, {one: unstored(one) for one in wanted(FOLDS, {}, many)}, many)
    assert caught.value.index == 5


def test_an_event_without_consent_has_no_user() -> None:
    event = {**LIVE[0], "user_id": "u", "consent": False}
    assert parse(orjson.dumps(event)).event.user_id is None
    assert parse(orjson.dumps({**event, "consent": True})).event.user_id == "u"
    with pytest.raises(EventError, match="session_id"):
        parse(orjson.dumps({**event, "session_id": ""}))
    assert parse(orjson.dumps({**event, "event_ts": START})).event.ts == START


def test_params_that_would_count_an_event_twice_are_refused(redis: Any) -> None:
    with pytest.raises(ParamsError, match=r"stream.remember_hours: 3 is not allowed; .* keep_hours \(5\)"):
        stream_params(keep_hours=5, remember_hours=3)
    assert not redis.exists(APPLIED)
