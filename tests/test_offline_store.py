"""The ASOF store answers as Feast's stock DuckDB store does, on random histories and on every hard case."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.infra.offline_stores.offline_utils import get_offline_store_from_config
from feast.types import Array, Float64, Int64, String
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.history import instant

TIMESTAMP = pa.timestamp("us", tz="UTC")
HOUR = 3_600_000_000
START = 1_767_225_600_000_000
ASOF = "feature_repo.offline_store.AsofOfflineStore"


def at(hours: float) -> datetime:
    return instant(START + int(hours * HOUR))


class Shop:
    """Two views in a folder (one with a composite key, renamed columns and lists), read by either store."""

    def __init__(self, folder: Path, ttl_hours: float = 0) -> None:
        self.folder = folder
        user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
        item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
        wide = FeatureView(
            name="wide",
            entities=[user],
            ttl=timedelta(hours=ttl_hours),
            schema=[
                Field(name="user_id", dtype=String),
                Field(name="count", dtype=Int64),
                Field(name="names", dtype=Array(String)),
            ],
            source=FileSource(
                name="wide",
                path=str(folder / "wide.parquet"),
                timestamp_field="ts",
                created_timestamp_column="made",
                field_mapping={"n": "count", "ts": "ts"},
            ),
        )
        pair = FeatureView(
            name="pair",
            entities=[user, item],
            ttl=timedelta(hours=ttl_hours),
            schema=[
                Field(name="user_id", dtype=String),
                Field(name="item_id", dtype=Int64),
                Field(name="count", dtype=Float64),
            ],
            source=FileSource(name="pair", path=str(folder / "pair.parquet"), timestamp_field="ts"),
        )
        self.objects: list[Any] = [user, item, wide, pair]
        self.write([], [])
        self.stores = {kind: self.store(kind) for kind in ("duckdb", ASOF)}

    def store(self, kind: str) -> FeatureStore:
        config = RepoConfig(
            project="test",
            provider="local",
            registry=str(self.folder / f"{kind}.db"),
            offline_store={"type": kind},
            online_store=None,
            entity_key_serialization_version=3,
        )
        store = FeatureStore(config=config)
        store.apply(self.objects)
        return store

    def write(self, wide: list[tuple[str, float, float, int]], pair: list[tuple[str, int, float]]) -> None:
        """`wide`: (user, ts, created, count) · `pair`: (user, item, ts), all times in hours."""
        keys = {"user_id": [w[0] for w in wide], "n": [w[3] for w in wide]}
        table = pa.table(
            {
                "user_id": pa.array(keys["user_id"], pa.string()),
                "ts": pa.array([at(w[1]) for w in wide], TIMESTAMP),
                "made": pa.array([at(w[2]) for w in wide], TIMESTAMP),
                "n": pa.array(keys["n"], pa.int64()),
                "names": pa.array([[f"n{i}" for i in range(w[3] % 4)] for w in wide], pa.list_(pa.string())),
            }
        )
        pq.write_table(table, self.folder / "wide.parquet")
        table = pa.table(
            {
                "user_id": pa.array([p[0] for p in pair], pa.string()),
                "item_id": pa.array([p[1] for p in pair], pa.int64()),
                "ts": pa.array([at(p[2]) for p in pair], TIMESTAMP),
                "count": pa.array([p[1] * 100 + p[2] for p in pair], pa.float64()),
            }
        )
        pq.write_table(table, self.folder / "pair.parquet")

    def ask(
        self, kind: str, questions: Sequence[tuple[str, int, float]], **options: Any
    ) -> list[dict[str, Any]]:
        frame = pd.DataFrame(
            {
                "user_id": [q[0] for q in questions],
                "item_id": [q[1] for q in questions],
                "event_timestamp": [at(q[2]) for q in questions],
                "label": range(len(questions)),
            }
        )
        features = ["wide:count", "wide:names", "pair:count"]
        job = self.stores[kind].get_historical_features(frame, features, full_feature_names=True, **options)
        return sorted(job.to_arrow().to_pylist(), key=lambda row: row["label"])

    def newest(self, kind: str, start: float, end: float) -> list[dict[str, Any]]:
        """What `materialize` gets of view `wide` between two hours."""
        store = self.stores[kind]
        job = get_offline_store_from_config(store.config.offline_store).pull_latest_from_table_or_query(
            config=store.config,
            data_source=self.objects[2].batch_source,
            join_key_columns=["user_id"],
            feature_name_columns=["n", "names"],
            timestamp_field="ts",
            created_timestamp_column="made",
            start_date=at(start),
            end_date=at(end),
        )
        return sorted(job.to_arrow().to_pylist(), key=lambda row: row["user_id"])

    def both(self, questions: Sequence[tuple[str, int, float]], **options: Any) -> list[dict[str, Any]]:
        """The ASOF answers, after comparing them with the stock ones."""
        asof = self.ask(ASOF, questions, **options)
        assert asof == self.ask("duckdb", questions, **options)
        return asof


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def aging(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("aging"), ttl_hours=5)


USERS, HOURS = st.sampled_from(["a", "b", "c"]), st.integers(0, 24)
QUESTIONS = st.lists(st.tuples(USERS, st.integers(1, 2), HOURS), min_size=1, max_size=12)
WIDE = st.lists(  # two rows of one key, instant and creation would have no defined winner
    st.tuples(USERS, HOURS, HOURS, st.integers(0, 9)), max_size=25, unique_by=lambda w: w[:3]
)
PAIR = st.lists(st.tuples(USERS, st.integers(1, 2), HOURS), max_size=25, unique=True)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wide=WIDE, pair=PAIR, questions=QUESTIONS, aged=st.booleans())
def test_random_histories_get_the_stock_store_s_answers(
    shop: Shop, aging: Shop, wide: Any, pair: Any, questions: Any, aged: bool
) -> None:
    chosen = aging if aged else shop
    chosen.write(wide, pair)
    chosen.both(questions)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wide=WIDE, start=HOURS, end=HOURS)
def test_the_newest_rows_of_random_histories_are_the_stock_store_s(
    shop: Shop, wide: Any, start: int, end: int
) -> None:
    shop.write(wide, [])
    assert shop.newest(ASOF, start, end) == shop.newest("duckdb", start, end)


def test_of_rows_at_the_same_instant_the_one_created_last_wins(shop: Shop) -> None:
    shop.write([("a", 1, 5, 10), ("a", 1, 9, 20), ("a", 1, 7, 30)], [])
    assert shop.both([("a", 1, 2)])[0]["wide__count"] == 20


def test_a_late_row_for_an_earlier_instant_does_not_replace_a_newer_one(shop: Shop) -> None:
    shop.write([("a", 5, 5, 10), ("a", 3, 20, 20)], [])
    answers = shop.both([("a", 1, 6), ("a", 1, 4), ("a", 1, 2)])
    assert [row["wide__count"] for row in answers] == [10, 20, None]


def test_a_row_is_visible_at_its_own_instant_and_until_its_age_limit(aging: Shop) -> None:
    aging.write([("a", 3, 3, 1)], [("a", 1, 3)])
    answers = aging.both([("a", 1, 3), ("a", 1, 8), ("a", 1, 8 + 1e-6), ("a", 1, 3 - 1e-6)])
    assert [row["wide__count"] for row in answers] == [1, 1, None, None]
    assert [row["pair__count"] for row in answers] == [103.0, 103.0, None, None]


def test_a_composite_key_matches_on_all_its_parts(shop: Shop) -> None:
    shop.write([], [("a", 1, 1), ("a", 2, 2), ("b", 1, 3)])
    answers = shop.both([("a", 1, 9), ("a", 2, 9), ("b", 1, 9), ("b", 2, 9)])
    assert [row["pair__count"] for row in answers] == [101.0, 202.0, 103.0, None]


def test_questions_that_repeat_are_all_answered_and_keep_their_order(shop: Shop) -> None:
    shop.write([("a", 1, 1, 3)], [])
    asked = [("b", 1, 2), ("a", 1, 2), ("a", 1, 2), ("a", 1, 0)]
    assert [row["wide__names"] for row in shop.both(asked)] == [
        None,
        ["n0", "n1", "n2"],
        ["n0", "n1", "n2"],
        None,
    ]


def test_a_cut_by_creation_time_is_left_to_the_stock_join(shop: Shop) -> None:
    shop.write([("a", 1, 1, 10), ("a", 2, 9, 20)], [])
    answers = shop.both([("a", 1, 5), ("a", 1, 9)], filter_by_created_timestamp=True)
    assert [row["wide__count"] for row in answers] == [10, 20]
