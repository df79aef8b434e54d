"""Two feature views in a folder, read by the ASOF store and by Feast's stock DuckDB store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.infra.offline_stores.offline_utils import get_offline_store_from_config
from feast.types import Array, Float64, Int64, String

from feature_repo.clock import instant

TIMESTAMP = pa.timestamp("us", tz="UTC")
HOUR = 3_600_000_000
START = 1_767_225_600_000_000
ASOF = "feature_repo.offline.asof_store.AsofOfflineStore"
SPARK = "feature_repo.offline.spark_store.SparkAsofOfflineStore"


class Wide(NamedTuple):
    """A row of view `wide`, key user; instants in hours; `made` and `count` may be unknown."""

    user: str | None
    ts: float
    made: float | None
    count: int | None


class Pair(NamedTuple):
    """A row of view `pair`, key (user, item); its feature is item * 100 + ts."""

    user: str | None
    item: int | None
    ts: float


class Question(NamedTuple):
    """`friend` is another user, whose `wide` row is asked for by the alias `befriended`."""

    user: str | None
    item: int | None
    ts: float
    friend: str | None = None


def at(hours: float) -> datetime:
    return instant(START + int(hours * HOUR))


class Shop:
    """Feature view `wide` has lists and renamed columns, `pair` a composite key and no creation time."""

    def __init__(
        self,
        folder: Path,
        ttl_hours: float = 0,
        source: Any = FileSource,
        kinds: Sequence[str] = ("duckdb", ASOF),
    ) -> None:
        self.folder = folder
        user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
        item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
        self.wide = FeatureView(
            name="wide",
            entities=[user],
            ttl=timedelta(hours=ttl_hours),
            schema=[
                Field(name="user_id", dtype=String),
                Field(name="count", dtype=Int64),
                Field(name="names", dtype=Array(String)),
            ],
            source=source(
                name="wide",
                path=str(folder / "wide.parquet"),
                timestamp_field="ts",
                created_timestamp_column="made",
                field_mapping={"n": "count", "who": "user_id", "moment": "ts", "learned": "made"},
            ),
        )
        pair = FeatureView(
            name="pair",
            entities=[user, item],
            ttl=timedelta(hours=ttl_hours),
            schema=[
                Field(name="user_id", dtype=String),
                Field(name="item_id", dtype=Int64),
                Field(name="weight", dtype=Float64),
            ],
            source=source(name="pair", path=str(folder / "pair.parquet"), timestamp_field="ts"),
        )
        own = self.wide.with_name(
            "own"
        )  # Feast cannot compare a view that has an alias with one that has none
        befriended = self.wide.with_name("befriended").with_join_key_map({"user_id": "friend_id"})
        service = FeatureService(name="friends", features=[own, befriended[["count"]], pair])
        self.objects: list[Any] = [user, item, self.wide, pair, service]
        self.write([], [])
        self.stores = {kind: self._store(kind) for kind in kinds}

    def _store(self, kind: str) -> FeatureStore:
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

    def write(self, wide: Sequence[Wide], pair: Sequence[Pair] = ()) -> None:
        """Replace the rows of both views."""
        made = [None if w.made is None else at(w.made) for w in wide]
        names = [None if w.count is None else [f"n{i}" for i in range(w.count % 4)] for w in wide]
        table = {
            "who": pa.array([w.user for w in wide], pa.string()),
            "moment": pa.array([at(w.ts) for w in wide], TIMESTAMP),
            "learned": pa.array(made, TIMESTAMP),
            "n": pa.array([w.count for w in wide], pa.int64()),
            "names": pa.array(names, pa.list_(pa.string())),
        }
        pq.write_table(pa.table(table), self.folder / "wide.parquet")
        naive = [at(p.ts).replace(tzinfo=None) for p in pair]  # read as UTC
        weight = [None if p.item is None else p.item * 100 + p.ts for p in pair]
        table = {
            "user_id": pa.array([p.user for p in pair], pa.string()),
            "item_id": pa.array([p.item for p in pair], pa.int64()),
            "ts": pa.array(naive, pa.timestamp("us")),
            "weight": pa.array(weight, pa.float64()),
        }
        pq.write_table(pa.table(table), self.folder / "pair.parquet")

    def ask(
        self, kind: str, questions: Sequence[Question], service: bool = False, **options: Any
    ) -> list[dict[str, Any]]:
        """Answers in the order in which the store gives them; `service` asks for all, with the alias."""
        frame = pd.DataFrame(
            {
                "user_id": pd.array([q.user for q in questions], "string"),
                "item_id": pd.array([q.item for q in questions], "Int64"),
                "friend_id": pd.array([q.friend for q in questions], "string"),
                "event_timestamp": pd.to_datetime([at(q.ts) for q in questions], utc=True),
                "label": range(len(questions)),
            }
        )
        store = self.stores[kind]
        listed = ["wide:count", "wide:names", "pair:weight"]
        features: Any = store.get_feature_service("friends") if service else listed
        frame = frame if service else frame.drop(columns="friend_id")
        job = store.get_historical_features(frame, features, full_feature_names=service, **options)
        return job.to_arrow().to_pylist()

    def both(self, questions: Sequence[Question], **options: Any) -> list[dict[str, Any]]:
        """The ASOF answers, which must equal the stock ones and stand in the order of the questions."""
        asof, stock = (self.ask(kind, questions, **options) for kind in (ASOF, "duckdb"))
        assert [row["label"] for row in asof] == list(range(len(questions)))
        assert asof == sorted(stock, key=lambda row: row["label"])
        return asof

    def newest(self, kind: str, start: float, end: float) -> list[dict[str, Any]]:
        """What `materialize` gets of view `wide` between two hours; Feast asks by the file's own names."""
        store = self.stores[kind]
        job = get_offline_store_from_config(store.config.offline_store).pull_latest_from_table_or_query(
            config=store.config,
            data_source=self.wide.batch_source,
            join_key_columns=["who"],
            feature_name_columns=["n", "names"],
            timestamp_field="moment",
            created_timestamp_column="learned",
            start_date=at(start),
            end_date=at(end),
        )
        return sorted(job.to_arrow().to_pylist(), key=lambda row: str(row["who"]))
