"""A DuckDB connection as Endcap uses it: bounded memory, UTC, silent, nothing fetched from a network."""

from __future__ import annotations

import duckdb


def connect(memory_limit: str) -> duckdb.DuckDBPyConnection:
    """An in-memory database that spills to disk beyond `memory_limit`, for example "4GB"."""
    settings = {"memory_limit": memory_limit, "autoinstall_known_extensions": False}
    connection = duckdb.connect(config=settings)  # type: ignore[arg-type]
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET TimeZone = 'UTC'")
    return connection
