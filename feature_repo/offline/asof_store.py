"""Point-in-time join by DuckDB's ASOF JOIN: the stock DuckDB store of Feast with a faster join.

The stock store joins by inequality and ranks what comes out, so a hundred rows per key become a hundred rows
per question before one is kept. Here asof.py finds one row per question and reads only that.
Answers equal the stock store's (tests compare them on random cases), in the order of the questions.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Literal

import duckdb
import ibis
import pandas as pd
import pyarrow as pa
from feast import FeatureView, FileSource, OnDemandFeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores import offline_utils
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig, _write_data_source
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.saved_dataset import SavedDatasetStorage

from feature_repo.offline.asof import QUESTION, AsofJoin, answered, newest
from feature_repo.offline.duck import connect


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """`offline_store:` of feature_store.yaml; the options of the DuckDB store and the memory it may take."""

    type: Literal["feature_repo.offline.asof_store.AsofOfflineStore"] = (
        "feature_repo.offline.asof_store.AsofOfflineStore"
    )
    memory_limit: str = "6GB"


class AsofOfflineStore(DuckDBOfflineStore):
    """DuckDB store for parquet files whose historical reads are ASOF joins.

    What is left to the stock join: on-demand views, and sources that are no parquet files.
    """

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        if on_demand or not all(map(_is_parquet, feature_views)):
            options = full_feature_names, filter_by_created_timestamp
            return DuckDBOfflineStore.get_historical_features(
                config, feature_views, feature_refs, entity_df, registry, project, *options
            )
        how = full_feature_names, filter_by_created_timestamp
        questions, joins, told = asked(feature_views, feature_refs, entity_df, *how)
        answer = _by_duckdb(config, partial(answered, questions, joins))
        return AsofRetrievalJob(answer, config, told, full_feature_names)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest row of each key within [start_date, end_date]; what `materialize` writes."""
        assert isinstance(data_source, FileSource), "Endcap's views lie in parquet files"
        created = [created_timestamp_column] if created_timestamp_column else []
        names = [*join_key_columns, *feature_name_columns, timestamp_field, *created]
        query = newest(
            data_source.path,
            join_key_columns,
            names,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )
        answer = _by_duckdb(config, lambda connection: connection.sql(query).to_arrow_table())
        return AsofRetrievalJob(answer, config, None, False)


class AsofRetrievalJob(RetrievalJob):
    """A table that `answer` makes when it is asked for."""

    def __init__(
        self,
        answer: Callable[[], pa.Table],
        config: RepoConfig,
        metadata: RetrievalMetadata | None,
        full_feature_names: bool,
    ) -> None:
        super().__init__()
        self._answer, self._config = answer, config
        self._metadata, self._full_feature_names = metadata, full_feature_names

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self._answer()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def persist(
        self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None
    ) -> None:
        table = ibis.memtable(self._to_arrow_internal(timeout))
        target = storage.to_data_source()
        _write_data_source(table, target, str(self._config.repo_path), "overwrite", allow_overwrite)

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata


def _by_duckdb(
    config: RepoConfig, answer: Callable[[duckdb.DuckDBPyConnection], pa.Table]
) -> Callable[[], pa.Table]:
    """`answer` with a connection of its own."""

    def made() -> pa.Table:
        with connect(memory_limit=config.offline_store.memory_limit) as connection:
            return answer(connection)

    return made


def asked(
    views: list[FeatureView],
    feature_refs: list[str],
    entity_df: pd.DataFrame | str,
    full_names: bool,
    learned: bool,
) -> tuple[pd.DataFrame, list[AsofJoin], RetrievalMetadata]:
    """Feast's question: its rows, numbered; what is asked of each view's file; what Feast tells of it."""
    assert isinstance(entity_df, pd.DataFrame), "Endcap asks with data frames, not with SQL"
    schema = dict(zip(entity_df.columns, entity_df.dtypes, strict=True))
    instant = offline_utils.infer_event_timestamp_from_entity_df(schema)
    questions = entity_df.copy(deep=False)
    questions[instant] = pd.to_datetime(entity_df[instant], utc=True)
    questions[QUESTION] = range(len(questions))
    told = RetrievalMetadata(
        features=feature_refs,
        keys=[name for name in entity_df.columns if name != instant],
        min_event_timestamp=questions[instant].min(),
        max_event_timestamp=questions[instant].max(),
    )
    return questions, [_join(view, feature_refs, instant, full_names, learned) for view in views], told


def _join(
    view: FeatureView, feature_refs: list[str], instant: str, full_names: bool, learned: bool
) -> AsofJoin:
    """What is asked of `view`, by the names of its file: Feast's own names may be mapped to others."""
    source: Any = view.batch_source  # a FileSource or a SparkSource, with a path
    stored = {new: old for old, new in source.field_mapping.items()}
    keys = view.projection.join_key_map or {c.name: c.name for c in view.entity_columns}
    created = source.created_timestamp_column
    return AsofJoin(
        path=source.path,
        keys={stored.get(key, key): asked for key, asked in keys.items()},
        instant=instant,
        timestamp=stored.get(source.timestamp_field, source.timestamp_field),
        created=stored.get(created, created) if created else None,
        learned=learned,
        age_us=int(view.ttl.total_seconds() * 1e6) if view.ttl else 0,
        columns={
            output: stored.get(name, name)
            for name, output in _requested(view, feature_refs, full_names).items()
        },
    )


def _requested(view: FeatureView, feature_refs: list[str], full_names: bool) -> dict[str, str]:
    """Feature -> its name in the output, for the references to `view`, in their order."""
    prefix = f"{view.projection.name_to_use()}:"
    alias = view.projection.name_alias or view.name
    names = [ref.removeprefix(prefix) for ref in feature_refs if ref.startswith(prefix)]
    return {name: f"{alias}__{name}" if full_names else name for name in names}


def _is_parquet(view: FeatureView) -> bool:
    source = view.batch_source
    return isinstance(source, FileSource) and source.path.endswith(".parquet")
