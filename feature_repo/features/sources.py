"""Where the offline rows of a view lie: one parquet file, or on Spark a folder of them, of the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from feature_repo.params import on_spark
from feature_repo.places import feature_file

if TYPE_CHECKING:
    from feast.data_source import DataSource

EVENT_TIMESTAMP = "event_timestamp"
CREATED_TIMESTAMP = "created_timestamp"


def source(view: str) -> DataSource:
    """The offline rows of `view`: its key, `event_timestamp`, `created_timestamp` and its columns."""
    # Imported here: 5 s that those who ask for a column's name alone do not need.
    options: dict[str, Any] = {
        "name": view,
        "path": str(feature_file(view)),
        "timestamp_field": EVENT_TIMESTAMP,
        "created_timestamp_column": CREATED_TIMESTAMP,
    }
    if on_spark():
        from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

        return SparkSource(**options, file_format="parquet")
    from feast import FileSource

    return FileSource(**options)
