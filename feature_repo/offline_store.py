"""Point-in-time join by DuckDB's ASOF JOIN: the stock DuckDB store of Feast with a faster join.

The stock store joins by inequality and ranks what comes out, so a hundred rows per key become a hundred rows
per question before one is kept. Here each view is joined in three steps; only the last reads wide rows:

    1  per key and instant the number of the row that wins from then on              late rows, ties
    2  ASOF JOIN of the questions with these numbers: the newest one at or before    age limit
    3  the parquet rows with these numbers, streamed past the matches                lists are read once

A row is visible from its timestamp on, or with `filter_by_created_timestamp` from the later of its timestamp
and its creation. In the first case the newest visible row wins; in the second a row that was learned late
may be older than one already visible, so the winner is the running maximum of (timestamp, created).

Answers equal the stock store's (tests compare them on random cases), in the order of the questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

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

from feature_repo.columnar import connect
from feature_repo.history import micros

QUESTION = "__question"  # number of the entity row, from 0


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """`offline_store:` of feature_store.yaml; the options of the DuckDB store and the memory it may take."""

    type: Literal["feature_repo.offline_store.AsofOfflineStore"] = (
        "feature_repo.offline_store.AsofOfflineStore"
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
            return DuckDBOfflineStore.get_historical_features(
                config=config,
                feature_views=feature_views,
                feature_refs=feature_refs,
                entity_df=entity_df,
                registry=registry,
                project=project,
                full_feature_names=full_feature_names,
                filter_by_created_timestamp=filter_by_created_timestamp,
            )
        assert isinstance(entity_df, pd.DataFrame), "Feast's DuckDB store takes entity rows as a data frame"
        schema = dict(zip(entity_df.columns, entity_df.dtypes, strict=True))
        instant = offline_utils.infer_event_timestamp_from_entity_df(schema)
        questions = entity_df.assign(**{instant: pd.to_datetime(entity_df[instant], utc=True)})
        columns, joins = [f'questions."{name}"' for name in entity_df.columns], ""
        for number, view in enumerate(feature_views):
            names = _requested(view, feature_refs, full_feature_names)
            columns += [f'answer_{number}."{output}"' for output in names.values()]
            answers = _answers(view, names, instant, filter_by_created_timestamp)
            joins += f" LEFT JOIN ({answers}) AS answer_{number} USING ({QUESTION})"
        return AsofRetrievalJob(
            questions.assign(**{QUESTION: range(len(questions))}),
            f"SELECT {', '.join(columns)} FROM questions {joins} ORDER BY {QUESTION}",
            config,
            RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in entity_df.columns if name != instant],
                min_event_timestamp=questions[instant].min(),
                max_event_timestamp=questions[instant].max(),
            ),
            full_feature_names,
        )

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
        rows = _rows(data_source)
        created = [created_timestamp_column] if created_timestamp_column else []
        names = [*join_key_columns, *feature_name_columns, timestamp_field, *created]
        wanted = ", ".join(f'wide."{name}"' for name in names)
        keys = ", ".join(f'"{key}"' for key in join_key_columns)
        newest = f'(epoch_us("{timestamp_field}"::TIMESTAMPTZ), {_created(created_timestamp_column)})'
        span = (
            f'epoch_us("{timestamp_field}"::TIMESTAMPTZ) BETWEEN {micros(start_date)} AND {micros(end_date)}'
        )
        query = f"""
            WITH newest AS (
                SELECT arg_max(file_row_number, {newest}) AS number FROM {rows} WHERE {span} GROUP BY {keys})
            SELECT {wanted} FROM newest JOIN {rows} AS wide ON wide.file_row_number = newest.number
            ORDER BY newest.number"""
        return AsofRetrievalJob(None, query, config, None, False)


class AsofRetrievalJob(RetrievalJob):
    """A query over parquet files and, where there are any, `questions`; run when its result is asked for."""

    def __init__(
        self,
        questions: pd.DataFrame | None,
        query: str,
        config: RepoConfig,
        metadata: RetrievalMetadata | None,
        full_feature_names: bool,
    ) -> None:
        super().__init__()
        self._questions, self._query, self._config = questions, query, config
        self._metadata, self._full_feature_names = metadata, full_feature_names

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        with connect(self._config.offline_store.memory_limit) as connection:
            if self._questions is not None:
                connection.register("questions", self._questions)
            return connection.sql(self._query).to_arrow_table()

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


def _answers(view: FeatureView, names: Mapping[str, str], instant: str, learned: bool) -> str:
    """SQL of one view's answers: column __question, then one column per requested feature.

    `names`: feature -> name in the output. `learned`: only rows created by the time of the question.
    """
    source: Any = view.batch_source
    stored = {new: old for old, new in source.field_mapping.items()}  # Feast's name -> the file's
    keys = view.projection.join_key_map or {c.name: c.name for c in view.entity_columns}
    rows = _rows(source)
    held = ", ".join(f'"{stored.get(key, key)}" AS key_{i}' for i, key in enumerate(keys))
    key_columns = ", ".join(f"key_{i}" for i in range(len(keys)))
    stamp = f'epoch_us("{stored.get(source.timestamp_field, source.timestamp_field)}"::TIMESTAMPTZ)'
    made = source.created_timestamp_column
    made = stored.get(made, made)
    late = learned and bool(made)
    visible = f'greatest({stamp}, epoch_us("{made}"::TIMESTAMPTZ))' if late else stamp
    matches = " AND ".join(f'q."{asked}" = winners.key_{i}' for i, asked in enumerate(keys.values()))
    limit = int(view.ttl.total_seconds() * 1e6) if view.ttl else 0
    fresh = f'WHERE winners.row.ts + {limit} >= epoch_us(q."{instant}")' if limit else ""
    wanted = ", ".join(f'wide."{stored.get(name, name)}" AS "{output}"' for name, output in names.items())
    return f"""
        WITH numbers AS (
            SELECT {held}, {visible} AS visible,
                   {{ts: {stamp}, made: {_created(made)}, number: file_row_number}} AS row FROM {rows}
            WHERE {stamp} <= (SELECT max(epoch_us("{instant}")) FROM questions)
                {f'AND "{made}" IS NOT NULL' if late else ""}),
        newest AS (
            SELECT {key_columns}, visible, max(row) AS row FROM numbers GROUP BY {key_columns}, visible),
        winners AS ({_running(key_columns) if late else "SELECT * FROM newest"}),
        matched AS (
            SELECT q.{QUESTION}, winners.row.number AS number FROM questions AS q ASOF JOIN winners
                ON {matches} AND epoch_us(q."{instant}") >= winners.visible {fresh})
        SELECT matched.{QUESTION}, {wanted} FROM matched JOIN {rows} AS wide
            ON wide.file_row_number = matched.number"""


def _running(key_columns: str) -> str:
    """SQL of the rows that win from each instant on: a late row never hides a newer one."""
    over = f"PARTITION BY {key_columns} ORDER BY visible"
    return f"SELECT {key_columns}, visible, max(row) OVER ({over}) AS row FROM newest"


def _rows(source: FileSource) -> str:
    """SQL table of a source's rows, numbered by column file_row_number."""
    file = source.path.replace("'", "''")
    return f"read_parquet('{file}', file_row_number = true)"


def _created(column: str | None) -> str:
    """SQL of the creation time in us; a row without one was created before all others."""
    return f'coalesce(epoch_us("{column}"::TIMESTAMPTZ), -(2::BIGINT ** 62)::BIGINT)' if column else "0"


def _requested(view: FeatureView, feature_refs: list[str], full_names: bool) -> dict[str, str]:
    """Feature -> its name in the output, for the references to `view`, in their order."""
    prefix = f"{view.projection.name_to_use()}:"
    alias = view.projection.name_alias or view.name
    names = [ref.removeprefix(prefix) for ref in feature_refs if ref.startswith(prefix)]
    return {name: f"{alias}__{name}" if full_names else name for name in names}


def _is_parquet(view: FeatureView) -> bool:
    source = view.batch_source
    return isinstance(source, FileSource) and source.path.endswith(".parquet")
