"""Stream from an offset: rows made afresh and the log applied anew give what the straight stream gave."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from shops.small import write_raw
from shops.stream import LIVE, behind, consumer, open_shop, post, rows, stream_params

from feature_repo.clock import instant
from feature_repo.errors import EndcapError, ParamsError
from feature_repo.eventlog.keys import APPLIED, partition_of, stream_key
from feature_repo.eventlog.open import open_log
from feature_repo.features.store import open_store
from feature_repo.offline.build import main as features
from pipelines.stream.materialize import materialize
from pipelines.stream.rewind import rewind

KEEP = 24  # hours
CUT = LIVE[350]["event_ts"]


@pytest.fixture
def redis(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    yield from open_shop(tmp_path, monkeypatch, redis_url)


def assert_close(found: Any, expected: Any) -> None:
    assert set(found) == set(expected)
    for entity, (ts, row) in expected.items():
        assert found[entity][0] == ts
        for name, value in row.items():
            close = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
            assert found[entity][1][name] == close, (entity, name)


def test_fresh_rows_and_the_log_from_its_beginning_equal_the_straight_stream(
    redis: Any, tmp_path: Path
) -> None:
    write_raw(tmp_path, LIVE)
    features()
    post(redis, LIVE)
    consumer().run(until_empty=True)
    straight = rows(redis)
    materialize(redis, open_store(), instant(CUT), 100, fresh=True)
    assert behind(redis) == len(LIVE)
    rewind(redis, open_log(redis, stream_params()), "beginning", KEEP)
    consumer().run(until_empty=True)
    assert_close(rows(redis), straight)


def test_what_arrives_after_the_backfill_counts_however_old_it_is(redis: Any, tmp_path: Path) -> None:
    *most, late = LIVE[:300]
    write_raw(tmp_path, LIVE[:299])
    features()
    post(redis, LIVE[:299])
    materialize(redis, open_store(), instant(CUT), 100, fresh=True)
    post(redis, [late, *LIVE[350:400], most[0]])  # the last one was there: its mark is set by the rewind
    consumer().run(until_empty=True)
    expected = rows(redis)
    redis.flushall()
    post(redis, [*LIVE[:300], *LIVE[350:400]])
    consumer().run(until_empty=True)
    assert_close(expected, rows(redis))


def test_an_event_that_the_shop_learned_of_after_the_export_is_applied_with_the_log(
    redis: Any, tmp_path: Path
) -> None:
    late = {**LIVE[100], "event_id": "late", "created_ts": LIVE[-1]["created_ts"] + 10_000_000}
    write_raw(tmp_path, LIVE)
    features()
    post(redis, [*LIVE, late])
    consumer().run(until_empty=True)
    straight = rows(redis)
    materialize(redis, open_store(), instant(LIVE[-1]["event_ts"] + 1), 100, fresh=True)
    consumer().run(until_empty=True)
    assert_close(rows(redis), straight)


def test_what_was_applied_too_long_ago_to_be_remembered_is_not_read_again(redis: Any) -> None:
    """Entries of 60 h ago, whose marks have run out, and of now."""
    old_ms = int((datetime.now(UTC) - timedelta(hours=60)).timestamp() * 1000)
    key = stream_key(partition_of(LIVE[0]["session_id"], 4))
    mine = [event for event in LIVE if event["session_id"] == LIVE[0]["session_id"]]
    for n, event in enumerate(mine[:10], 1):
        redis.xadd(key, {"event": orjson.dumps(event)}, id=f"{old_ms}-{n}")
    consumer().run(until_empty=True)
    redis.delete(*redis.keys("endcap:done:*"))
    post(redis, mine[10:20])
    consumer().run(until_empty=True)
    before = rows(redis)
    rewind(redis, open_log(redis, stream_params()), "beginning", KEEP)
    assert behind(redis) == 10
    consumer().run(until_empty=True)
    assert rows(redis) == before


def test_the_log_keeps_what_was_applied_lately_and_drops_the_rest(redis: Any) -> None:
    old_ms = int((datetime.now(UTC) - timedelta(hours=60)).timestamp() * 1000)
    for n in range(1, 21):
        redis.xadd(stream_key(0), {"event": b"{}"}, id=f"{old_ms}-{n}")
    log = open_log(redis, stream_params())
    log.trim({0: f"{old_ms}-10"})
    assert redis.xlen(stream_key(0)) == 11  # the last one applied, and those that are not
    log.trim({0: f"{old_ms}-20"})
    assert redis.xlen(stream_key(0)) == 1


def test_what_is_read_again_without_need_counts_once(redis: Any) -> None:
    post(redis, LIVE[:200])
    consumer().run(until_empty=True)
    before = rows(redis)
    log = open_log(redis, stream_params())
    for start in ("beginning", (datetime.now(UTC) - timedelta(hours=1)).isoformat()):
        rewind(redis, log, start, KEEP)
        assert not redis.exists(APPLIED) and behind(redis) == 200
        consumer().run(until_empty=True)
        assert rows(redis) == before


def test_a_position_and_an_instant_of_arrival_name_where_to_begin(redis: Any) -> None:
    post(redis, LIVE[:100])
    consumer().run(until_empty=True)
    log = open_log(redis, stream_params())
    number = redis.xrange(stream_key(2))[3][0].decode()
    rewind(redis, log, f"2:{number}", KEEP)
    assert behind(redis) == redis.xlen(stream_key(2)) - 4
    rewind(redis, log, (datetime.now(UTC) + timedelta(hours=1)).isoformat(), KEEP)
    assert behind(redis) == 0
    with pytest.raises(
        ParamsError, match=r"--from: 'yesterday' is not allowed; allowed: beginning, an instant"
    ):
        rewind(redis, log, "yesterday", KEEP)
    for nowhere in ("9:5-1", "2:17"):
        with pytest.raises(ParamsError, match=rf"--from: '{nowhere}' is not allowed; .* from 0 to 3"):
            rewind(redis, log, nowhere, KEEP)
    redis.set("endcap:stream:lease:visitors:1", "somebody", px=5_000)
    with pytest.raises(EndcapError, match="endcap:stream:lease:visitors:1 is held"):
        rewind(redis, log, "beginning", KEEP)
