"""Where the offline rows of a view lie. Another offline store changes this file and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_repo.places import feature_file

if TYPE_CHECKING:
    from feast.data_source import DataSource

EVENT_TIMESTAMP = "event_timestamp"
CREATED_TIMESTAMP = "created_timestamp"


def source(view: str) -> DataSource:
    """The offline rows of `view`: its key, `event_timestamp`, `created_timestamp` and its columns.

    A shop on Spark returns a SparkSource here: that offline store refuses file sources.
    """
    from feast import FileSource  # 5 s that those who ask for a column's name alone do not need

    return FileSource(
        name=view,
        path=str(feature_file(view)),
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED_TIMESTAMP,
    )
