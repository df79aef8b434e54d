"""What the log of events holds is written down once, and an import takes what the export lacks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from redis import Redis
from shops.small import ITEMS, random_events, write_raw
from shops.small import open_home as small_home

from feature_repo.clock import DAY_US, instant, micros
from feature_repo.eventlog.keys import StreamParams, partition_of
from feature_repo.eventlog.lua import append
from feature_repo.features.catalogue import said_at
from feature_repo.offline import event_log
from feature_repo.params import load
from feature_repo.persons import tombstones
from feature_repo.persons.privacy import persons
from feature_repo.places import DATA, EVENT_LOG, EVENTS, IMPRESSIONS, ITEM_LOG, RAW, at
from feature_repo.places import ITEMS as CATALOGUE
from pipelines.ingest.adapters.adapters import Canonical
from pipelines.ingest.ingest import IngestParams, ingest
from pipelines.retrain import land as job
from pipelines.retrain.land import Landed, land
from pipelines.stream.notes import drain

OLD = random_events(seed=5, count=200)
END = max(event["event_ts"] for event in OLD)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def redis(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    small_home(tmp_path, monkeypatch)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr(job, "SETTLED_MS", -1)  # what was just written is taken in: no test waits a second
    with Redis.from_url(redis_url) as client:
        yield client


def post(redis: Redis, number: int, ts: int, kind: str = "product_viewed", **told: Any) -> None:
    event = {"event_id": f"live-{number}", "event_ts": ts, "created_ts": ts + 7, "type": kind}
    event |= {"session_id": f"s{number % 5}", "item_id": ITEMS[number % 3], "consent": True, **told}
    partition = partition_of(event["session_id"], load("stream", StreamParams).partitions)
    append(redis, partition, orjson.dumps(event))


def landed(redis: Redis) -> Landed:
    return land(redis, at(EVENT_LOG), load("stream", StreamParams))


def test_what_a_log_still_has_of_an_erased_person_is_not_written_down(redis: Redis) -> None:
    for number in range(4):
        post(redis, number, END + number)
    post(redis, 5, END + 5, session_id="s0", user_id="ann")  # in the visit of somebody erased
    post(redis, 6, END + 6, session_id="s3", user_id="bob")
    known = persons()
    tombstones.keep([known.tombstone(known.of(name)) for name in ("s0", "bob")], redis)
    assert landed(redis).rows == 4
    assert sorted(written()) == ["live-1", "live-2", "live-3", "live-5"]


def written() -> list[str]:
    return [
        event
        for file in event_log.files(at(EVENT_LOG))
        for event in pq.read_table(file)["event_id"].to_pylist()
    ]


def imported(home: Path) -> None:
    """The export is what write_raw wrote, moved to a folder of its own."""
    export = home / "data/export"
    if not export.exists():
        write_raw(home, OLD)
        (home / RAW).rename(export)
    ingest("small", Canonical(export), at(DATA), load("ingest", IngestParams), LATEST)


def test_each_event_is_written_once_whenever_it_is_asked_and_the_newest_file_grows(redis: Redis) -> None:
    for number in range(40):
        post(redis, number, END + number)
        if number % 10 == 0:
            landed(redis)
    assert landed(redis).rows + 31 == 40 and landed(redis).rows == 0
    assert sorted(written()) == sorted(f"live-{number}" for number in range(40))
    assert len(list(at(EVENT_LOG).glob("*.parquet"))) == 1


def test_what_a_killed_writer_left_beside_the_longer_file_counts_for_nothing(redis: Redis) -> None:
    post(redis, 1, END + 1)
    landed(redis)
    (short,) = at(EVENT_LOG).glob("*.parquet")
    left = short.read_bytes()
    post(redis, 2, END + 2)
    landed(redis)
    short.write_bytes(left)
    assert written() == ["live-1", "live-2"]


def test_a_log_that_had_forgotten_is_told_and_a_quiet_shop_is_not_taken_for_one(
    redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    post(redis, 1, END + 1)
    assert job.main() == 0
    (file,) = at(EVENT_LOG).glob("*.parquet")
    first, last = event_log.span(file)
    days = 2 * DAY_US // 1000
    file.rename(file.with_name(f"{first}-{last - days}.parquet"))  # as if the last run was two days ago
    assert job.main() == 1 and "may be lost: the log keeps `stream.keep_hours`" in capsys.readouterr().out
    assert job.main() == 0  # nothing came, but somebody looked


def test_an_import_takes_live_events_after_the_exports_newest_and_no_event_twice(
    redis: Redis, tmp_path: Path
) -> None:
    imported(tmp_path)
    before = pq.read_metadata(at(EVENTS)).num_rows
    said = said_at(at(RAW))
    post(redis, 1, END - 5)  # the export has what was then
    post(redis, 2, END + 5)
    post(redis, 3, END + 6, "impression", request_id="r", slot=0, position=1)
    post(redis, 4, END + 7, consent=False, user_id="u-who-said-no")
    landed(redis)
    imported(tmp_path)
    events = pq.read_table(at(EVENTS)).to_pylist()
    assert [event["event_id"] for event in events[before:]] == ["live-2", "live-4"]
    assert events[before]["event_ts"] == instant(END + 5) and events[-1]["consent"] is False
    assert pq.read_table(at(IMPRESSIONS))["event_id"].to_pylist()[-1] == "live-3"
    assert said_at(at(RAW)) == said  # the catalogue is no newer for it: live prices stay the later word


def test_an_item_that_was_born_live_joins_the_catalogue_on_sale_from_then(
    redis: Redis, tmp_path: Path
) -> None:
    said = {"title": "Mug", "price": 9.5, "stock": 4, "deleted": False}
    redis.xadd("endcap:items:said", {"change": orjson.dumps(["mug", END + 50, END + 55, said])})
    drain(redis, at(ITEM_LOG))
    post(redis, 9, END + 60, item_id="mug")
    landed(redis)
    imported(tmp_path)
    (mug,) = [row for row in pq.read_table(at(CATALOGUE)).to_pylist() if row["item_id"] == "mug"]
    assert (mug["title"], mug["price"], micros(mug["available_from"])) == ("Mug", 9.5, END + 50)
