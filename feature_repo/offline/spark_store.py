"""Feast's Spark offline store with the join of asof.py in Spark SQL: a row per question is found, then read.

The stock store joins by inequality, gives its answers in any order and integers with gaps as floats. Here

    1  (key, instant, created) of the keys asked for and the questions, one after the other in time
    2  the running maximum of (instant, created) of a key: at a question it is the row that answers it
    3  only the rows found are read whole, and put beside the questions by the code of the embedded store

Answers equal those of asof_store.py in values, types and order; which rows win is said in asof.py.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.contrib.spark_offline_store.spark import (
    SparkOfflineStore,
    SparkOfflineStoreConfig,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry

from feature_repo.clock import micros
from feature_repo.offline.asof import QUESTION, AsofJoin, beside
from feature_repo.offline.asof_store import AsofRetrievalJob, asked
from feature_repo.offline.spark import session

NEVER = -(2**62)  # a row without a creation time was created before all others


class SparkAsofOfflineStoreConfig(SparkOfflineStoreConfig):
    """The options of the stock store, none of which is needed: the session is offline.spark's."""

    type: Literal["feature_repo.offline.spark_store.SparkAsofOfflineStore"] = (
        "feature_repo.offline.spark_store.SparkAsofOfflineStore"
    )


class SparkAsofOfflineStore(SparkOfflineStore):
    """Spark store for parquet paths. On-demand views, of which Endcap has none, are left to the stock one."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        how = full_feature_names, filter_by_created_timestamp
        if OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry):
            return SparkOfflineStore.get_historical_features(
                config, feature_views, feature_refs, entity_df, registry, project, *how, **kwargs
            )
        questions, joins, told = asked(feature_views, feature_refs, entity_df, *how)
        return AsofRetrievalJob(partial(_answered, questions, joins), config, told, full_feature_names)

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
        """The newest row of each key within [start_date, end_date], by key: each is asked for at the end."""
        source: Any = data_source  # a SparkSource, with a path
        created = [created_timestamp_column] if created_timestamp_column else []
        names = [*join_key_columns, *feature_name_columns, timestamp_field, *created]
        join = AsofJoin(
            path=source.path,
            keys={key: key for key in join_key_columns},
            instant="",
            timestamp=timestamp_field,
            created=created_timestamp_column,
            learned=False,
            age_us=max(1, (end_date - start_date) // timedelta(microseconds=1)),
            columns={name: name for name in names},
        )
        return AsofRetrievalJob(partial(_latest, join, micros(end_date)), config, None, False)


def _answered(questions: pd.DataFrame, joins: Sequence[AsofJoin]) -> pa.Table:
    spark = session()
    table = pa.Table.from_pandas(questions.drop(columns=QUESTION), preserve_index=False)
    for join in joins:
        names = [QUESTION, *join.keys.values()]
        moments = questions[join.instant].astype("datetime64[us, UTC]").astype("int64")
        put = pa.Table.from_pandas(questions[names].assign(at=moments), preserve_index=False)
        keys = [f"`{name}` AS key_{i}" for i, name in enumerate(join.keys.values())]
        spark.createDataFrame(put).selectExpr(QUESTION, *keys, "at").createOrReplaceTempView("asked")
        _hold(join)
        table = beside(table, join, spark.sql(_found(join, QUESTION)).toArrow())
    return table


def _latest(join: AsofJoin, end: int) -> pa.Table:
    _hold(join)
    keys = ", ".join(_keys(join))
    asked = f"SELECT DISTINCT {keys}, {end} AS at, 0 AS {QUESTION} FROM held"
    session().sql(asked).createOrReplaceTempView("asked")
    found = session().sql(f"{_found(join)} ORDER BY {', '.join(f'`{key}`' for key in join.keys)}")
    return found.toArrow()


def _hold(join: AsofJoin) -> None:
    """The view `held`: rows of the file as col_0, ..., keys as key_0, ..., both times (us) as ts, made."""
    rows = session().read.parquet(join.path)
    if join.learned and join.created:
        rows = rows.where(f"`{join.created}` IS NOT NULL")
    made = f"coalesce({_us(join.created)}, {NEVER})" if join.created else "0"
    keys = [f"`{name}` AS key_{i}" for i, name in enumerate(join.keys)]
    columns = [f"`{stored}` AS col_{i}" for i, stored in enumerate(join.columns.values())]
    times = f"{_us(join.timestamp)} AS ts", f"{made} AS made"
    rows.selectExpr(*columns, *keys, *times).createOrReplaceTempView("held")


def _found(join: AsofJoin, *more: str) -> str:
    """SQL: the columns of the rows that answer the view `asked` (question, keys, at), out of `held`."""
    keys = ", ".join(_keys(join))
    known = " AND ".join(f"{key} IS NOT NULL" for key in _keys(join))
    visible = "greatest(ts, made)" if join.learned and join.created else "ts"
    fresh = f"AND row.ts + {join.age_us} >= at" if join.age_us else ""
    columns = ", ".join([*more, *(f"held.col_{i} AS `{name}`" for i, name in enumerate(join.columns))])
    same = " AND ".join(f"won.{key} = held.{key}" for key in _keys(join))
    return f"""
        WITH line AS (
            SELECT NULL AS {QUESTION}, {keys}, {visible} AS at, struct(ts, made) AS row
            FROM held LEFT SEMI JOIN (SELECT DISTINCT {keys} FROM asked) USING ({keys}) WHERE {known}
            UNION ALL SELECT {QUESTION}, {keys}, at, NULL AS row FROM asked WHERE {known}),
        won AS (
            SELECT {QUESTION}, {keys}, row.ts, row.made FROM (
                SELECT {QUESTION}, {keys}, at, max(row) OVER (
                    PARTITION BY {keys} ORDER BY at, {QUESTION} IS NOT NULL
                    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS row
                FROM line)
            WHERE {QUESTION} IS NOT NULL AND row IS NOT NULL {fresh})
        SELECT {columns} FROM won JOIN held ON {same} AND won.ts = held.ts AND won.made = held.made"""


def _keys(join: AsofJoin) -> list[str]:
    return [f"key_{i}" for i in range(len(join.keys))]


def _us(column: str) -> str:
    """SQL: an instant in us; one without a time zone is UTC's, as the session is."""
    return f"unix_micros(CAST(`{column}` AS TIMESTAMP))"
