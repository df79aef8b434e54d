"""Log-and-wait: rows that serving logged equal the recomputed ones, and what must not be read is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from shops import tiny_bundle
from shops.small import START, open_home, random_events, write_raw

from feature_repo.assemble.schema import schema_hash
from feature_repo.clock import DAY_US, instant
from feature_repo.errors import DataError
from feature_repo.offline.build import main as features
from feature_repo.params import load
from feature_repo.places import SERVED_LOG, at
from pipelines.protocol import served
from pipelines.protocol.known import known_at
from pipelines.protocol.logged import Example, logged_examples
from pipelines.protocol.queries import Query, make_queries, product_events
from pipelines.protocol.ranker_data import recomputed_examples
from serving.live.exposures import SERVED, ExposureLog, sample
from serving.params import Serving
from serving.pipeline import Bundle, recommend
from serving.release import bundle
from serving.types import Answer

FROM, UNTIL = instant(START), instant(START + 11 * DAY_US)
WAIT_HOURS = 48.0


class Logged(NamedTuple):
    """A shop whose visits fall into one day; its queries, answered by `release`, lie in `folder`."""

    events: pd.DataFrame
    queries: list[Query]
    release: Bundle
    folder: Path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, redis_server: str) -> Iterator[Logged]:
    with pytest.MonkeyPatch.context() as patch:
        home = open_home(tmp_path_factory.mktemp("shop"), patch)
        events = random_events(seed=5, count=500, days=1.0)
        last = {**events[-1], "event_id": "z", "type": "product_viewed", "session_id": "after the wait"}
        events.append(last | {"event_ts": START + 10 * DAY_US, "created_ts": START + 10 * DAY_US})
        write_raw(home, [e | {"item_id": e["item_id"].replace(" ", "-")} for e in events])
        pq.write_table(tiny_bundle.catalogue(60), home / "data" / "raw" / "items.parquet")
        features()
        release = bundle.load(tiny_bundle.make(home))
        contacts = product_events(home / "data" / "raw")
        queries = make_queries(contacts, FROM, UNTIL, None, np.random.default_rng(0))
        asyncio.run(_answer(queries, release, redis_server))
        with Redis.from_url(redis_server) as redis:
            answers, _, others = served.append(redis, at(SERVED_LOG))
        assert (answers, others) == (len(queries), {})
        yield Logged(contacts, queries, release, at(SERVED_LOG))


async def _answer(queries: list[Query], release: Bundle, url: str) -> None:
    """Every query through the request path, and what it samples through the log, as serving does."""
    async with AsyncRedis.from_url(url) as redis:
        await redis.flushall()
        log = ExposureLog(
            redis, replace(load("serving", Serving), served_kept=100_000, exposures_queued=100_000)
        )
        for query, request, visitor, matrix in known_at(queries, release.models.ids, 12):
            found = recommend(request, release, visitor, matrix)
            known = (request.surface, found.slots, "champion", release.digest, "live", None, 0, 1.0)
            answer = Answer(f"{query.id:06d}", *known)
            log.add_sample(sample(request, answer, query.now, found, matrix), found.ranked.matrix)
        assert await log.flush()


def read(shop: Logged, folder: Path, until: Any = UNTIL, wait: float = WAIT_HOURS) -> list[Example]:
    return list(logged_examples(folder, shop.events, FROM, until, wait)[0])


@pytest.fixture
def folder(shop: Logged, tmp_path: Path) -> Path:
    """A folder with a file of the logged answers, to be spoiled."""
    (file,) = shop.folder.glob("*.parquet")
    pq.write_table(pq.read_table(file), tmp_path / file.name)
    return tmp_path


def rewrite(folder: Path, change: Any) -> None:
    (file,) = folder.glob("*.parquet")
    pq.write_table(change(pq.read_table(file)), file)


def by_item(example: Example) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Serving logs the candidates in the order of the ranker, the recomputed are in that of retrieval."""
    order = np.argsort(example.items)
    return [example.items[i] for i in order], example.label[order], example.columns[order]


def test_logged_rows_equal_the_recomputed_ones(shop: Logged) -> None:
    recomputed = list(recomputed_examples(shop.queries, shop.release.models, shop.release.retrieve))
    logged = read(shop, shop.folder)
    assert len(logged) == len(recomputed) > 90
    assert sum(int(example.label.sum()) for example in logged) > 200
    for ours, theirs in zip(logged, recomputed, strict=True):
        assert ours.now == theirs.now
        (items, label, columns), (wanted, expected, values) = by_item(ours), by_item(theirs)
        assert items == wanted
        np.testing.assert_array_equal(label, expected)
        np.testing.assert_array_equal(columns, values)


def test_a_file_that_is_not_finished_is_not_read(shop: Logged, folder: Path) -> None:
    (folder / ".1.0-2.0.parquet.17").write_bytes(b"half a file")
    assert len(read(shop, folder)) == len(read(shop, shop.folder))


def test_a_file_of_other_columns_is_named(shop: Logged, folder: Path) -> None:
    pq.write_table(pa.table({"request_id": ["r"], "views_1h": [1.0]}), folder / "0.0-0.1.parquet")
    with pytest.raises(
        DataError, match=r"0\.0-0\.1\.parquet: its columns .* views_1h double.* move the file"
    ):
        read(shop, folder)


def test_answers_of_another_schema_are_not_kept_and_counted_by_name(redis_url: str, tmp_path: Path) -> None:
    with Redis.from_url(redis_url) as redis:
        for meta in ({"schema": "another"}, {"schema": "another"}, {}):
            redis.xadd(SERVED, {"meta": orjson.dumps(meta | {"items": ["a"]}), "features": b"\0" * 8})
        assert served.append(redis, tmp_path) == (0, 0, {"another": 2, "none": 1})
        assert not list(tmp_path.iterdir())
        ours = orjson.dumps({"schema": schema_hash(), "items": ["a"]})
        redis.xadd(SERVED, {"meta": ours, "features": b"\0" * 8})
        with pytest.raises(DataError, match="has 8 bytes for 1 candidates of 28 float32"):
            served.append(redis, tmp_path)


def test_logged_answers_of_another_schema_are_left_out_and_counted(shop: Logged, folder: Path) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        others = {f"{query.id:06d}" for query in shop.queries[:10]}
        ours = zip(table["request_id"].to_pylist(), table["schema"].to_pylist(), strict=True)
        names = pa.array(["another" if request in others else schema for request, schema in ours])
        return table.set_column(table.column_names.index("schema"), table.schema.field("schema"), names)

    rewrite(folder, spoil)
    examples, left = logged_examples(folder, shop.events, FROM, UNTIL, WAIT_HOURS)
    assert left == (10, 0)
    assert min(example.now for example in examples) >= shop.queries[10].now


def test_a_log_of_nothing_but_another_schema_is_refused_by_name(shop: Logged, folder: Path) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        names = pa.array(["another"] * len(table))
        return table.set_column(table.column_names.index("schema"), table.schema.field("schema"), names)

    rewrite(folder, spoil)
    with pytest.raises(DataError, match="every answer is of feature schema another; allowed: "):
        read(shop, folder)


def test_no_label_comes_from_the_end_of_the_span_or_later(shop: Logged) -> None:
    """Answers whose wait reaches the end are left out whole: half a wait would call wanted items unwanted."""
    until, wait = instant(shop.queries[len(shop.queries) // 2].now), 1.0
    examples, left = logged_examples(shop.folder, shop.events, FROM, until, wait)
    asked = [query.now for query in shop.queries if instant(query.now) < until]
    done = [now for now in asked if instant(now) + timedelta(hours=wait) < until]
    assert left == (0, len(asked) - len(done)) and left.unfinished > 0
    assert 0 < len(list(examples)) <= len(done)


def test_an_event_at_the_instant_of_a_query_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a replay, where events strictly before the query are posted. Values are brought to the query."""
    home = open_home(tmp_path, monkeypatch)
    base = random_events(seed=1, count=1)[0] | {"session_id": "s", "user_id": "u", "position": None}
    base |= {"type": "product_viewed", "consent": True}
    stamps = {"item 0": START, "item 1": START + 1, "item 2": START + DAY_US}
    events = [
        base | {"event_id": item, "item_id": item, "event_ts": ts, "created_ts": ts}
        for item, ts in stamps.items()
    ]
    write_raw(home, events)
    features()
    queries = make_queries(product_events(home / "data" / "raw"), FROM, None, None, np.random.default_rng(0))
    ids = ["item 0", "item 1", "item 2"]
    seen = []
    for query, _, visitor, matrix in known_at(queries, ids, 12):
        views = matrix.count("views_24h", query.now, np.arange(3)).round(6).tolist()
        seen.append(
            (query.now, visitor.now, visitor.session["contact_items"], visitor.user["views_30d"], views)
        )
    assert seen[0] == (START + 1, START + 1, ["item 0"], 1.0, [1.0, 0.0, 0.0])
    assert seen[1][2] == ["item 0", "item 1"] and seen[1][4] == [1.0, 1.0, 0.0]


def test_the_folder_of_the_log_is_there_before_anything_is_logged(shop: Logged) -> None:
    """The stage ranker_data depends on it: `endcap features` makes it, `endcap served` fills it."""
    assert shop.folder == at(SERVED_LOG) and len(list(shop.folder.iterdir())) == 1
