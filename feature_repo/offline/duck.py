"""A DuckDB connection as Endcap uses it: bounded memory, UTC, silent, nothing fetched from a network."""

from typing import Any

import duckdb


def connect(**settings: Any) -> duckdb.DuckDBPyConnection:
    """An in-memory database with DuckDB's `settings`: memory_limit="4GB", beyond which it spills to disk."""
    fixed = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    connection = duckdb.connect(config=settings | fixed)
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET TimeZone = 'UTC'")
    return connection
