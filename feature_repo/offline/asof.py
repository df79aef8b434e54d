"""Which row of a parquet file was the newest at past instants, and its columns, by DuckDB.

Each file is joined in three steps; only the last reads wide rows:

    1  keys of the questions get numbers; rows of other keys are dropped      strings are compared once
    2  ASOF JOIN of the questions with (key, instant, row number)             ties, late rows, age limit
    3  the matched rows, streamed past the matches, gathered into order       lists are read once

A row wins from its timestamp on; of two with one timestamp, the one that was created last. With `learned` a
row is not visible before it was created, and a row learned late may be older than one already visible: then
the winner is the running maximum of (timestamp, created).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from feature_repo.clock import micros

QUESTION = "__question"  # number of the question, from 0
BLOCK = 65_536  # questions per chunk of an answer: an arrow list holds at most 2^31 values
TWO_64 = "18446744073709551616::HUGEINT"


@dataclass(frozen=True)
class AsofJoin:
    """What is asked of one file of feature rows."""

    path: str
    keys: Mapping[str, str]  # column of the file -> column of the questions
    instant: str  # column of the questions
    timestamp: str
    created: str | None
    learned: bool  # only rows created by the time of the question
    age_us: int  # a row older than this is no answer; 0: no limit
    columns: Mapping[str, str]  # column of the answer -> column of the file

    def matches(self) -> str:
        """SQL: (__question, number of the row that answers it), where there is one."""
        stamp, late = f'epoch_us("{self.timestamp}"::TIMESTAMPTZ)', self.learned and self.created is not None
        key_columns = ", ".join(f"key_{i}" for i in range(len(self.keys)))
        asked = ", ".join(f'"{name}" AS key_{i}' for i, name in enumerate(self.keys.values()))
        held = ", ".join(f'"{name}" AS key_{i}' for i, name in enumerate(self.keys))
        fresh = f"WHERE winners.ts + {self.age_us} >= asked.ts" if self.age_us else ""
        return f"""
            WITH keys AS MATERIALIZED (
                SELECT row_number() OVER () AS id, * FROM (SELECT DISTINCT {asked} FROM questions)),
            asked AS MATERIALIZED (
                SELECT id, {QUESTION}, epoch_us("{self.instant}") AS ts
                FROM (SELECT *, {asked} FROM questions) JOIN keys USING ({key_columns})),
            numbers AS MATERIALIZED (
                SELECT id, ts, made, number FROM (
                    SELECT {held}, {stamp} AS ts, {_created(self.created)} AS made, file_row_number AS number
                    FROM {_rows(self.path)} {f'WHERE "{self.created}" IS NOT NULL' if late else ""})
                JOIN keys USING ({key_columns})),
            winners AS MATERIALIZED ({RUNNING if late else NEWEST})
            SELECT asked.{QUESTION}, winners.number FROM asked ASOF JOIN winners
                ON asked.id = winners.id AND (asked.ts + 1) * {TWO_64} > winners.since {fresh}"""

    def wide(self) -> str:
        """SQL: (__question, columns of its answer) from the table `matched`."""
        columns = ", ".join(f'wide."{held}" AS "{name}"' for name, held in self.columns.items())
        return (
            f"SELECT {QUESTION}, {columns} FROM matched JOIN {_rows(self.path)} AS wide"
            " ON wide.file_row_number = matched.number"
        )


# since: a 128-bit number that orders rows by (timestamp, created); 2^62 keeps the lower half positive.
NEWEST = f"SELECT id, ts * {TWO_64} + (made + 2::BIGINT ** 62)::BIGINT AS since, ts, number FROM numbers"
RUNNING = f"""
    SELECT id, visible * {TWO_64} AS since, row.ts AS ts, row.number AS number FROM (
        SELECT id, visible, max(row) OVER (PARTITION BY id ORDER BY visible) AS row FROM (
            SELECT id, greatest(ts, made) AS visible, {{ts: ts, made: made, number: number}} AS row
            FROM numbers))"""


def answered(
    questions: pd.DataFrame, joins: Sequence[AsofJoin], connection: duckdb.DuckDBPyConnection
) -> pa.Table:
    """The columns of `questions`, then those of every join, null where nothing was known; same order.

    `questions` has a column __question, which numbers the rows from 0.
    """
    connection.register("questions", questions)
    query = f"SELECT * EXCLUDE ({QUESTION}) FROM questions ORDER BY {QUESTION}"
    table = connection.sql(query).to_arrow_table()
    connection.execute("SET arrow_large_buffer_size = true")  # one array may hold more than 2^31 bytes
    for join in joins:
        connection.execute(f"CREATE OR REPLACE TEMP TABLE matched AS {join.matches()}")
        table = beside(table, join, connection.sql(join.wide()).to_arrow_table())
    return table


def beside(table: pa.Table, join: AsofJoin, found: pa.Table) -> pa.Table:
    """`table`, a row per question, and the columns of `join` from the rows `found`, by the number."""
    place = np.full(len(table), -1)
    place[found[QUESTION].to_numpy()] = np.arange(len(found))
    blocks = [place[at : at + BLOCK] for at in range(0, len(place), BLOCK)]
    places = [pa.array(block, mask=block < 0) for block in blocks]
    for name in join.columns:
        table = table.append_column(name, _gathered(found[name], places))
    return table


def _gathered(column: pa.ChunkedArray, places: Sequence[pa.Array]) -> pa.ChunkedArray:
    """column[place], null for null, block by block; large lists and strings become plain ones."""
    values, kind = column.combine_chunks(), _plain(column.type)
    return pa.chunked_array([values.take(block).cast(kind) for block in places], kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    return {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(kind, kind)


def newest(
    path: str,
    keys: Sequence[str],
    columns: Sequence[str],
    timestamp: str,
    created: str | None,
    start: datetime,
    end: datetime,
) -> str:
    """SQL: `columns` of the newest row of each key within [start, end], in the order of the file."""
    stamp = f'epoch_us("{timestamp}"::TIMESTAMPTZ)'
    wanted = ", ".join(f'wide."{name}"' for name in columns)
    by = ", ".join(f'"{key}"' for key in keys)
    return f"""
        WITH newest AS (
            SELECT arg_max(file_row_number, ({stamp}, {_created(created)})) AS number FROM {_rows(path)}
            WHERE {stamp} BETWEEN {micros(start)} AND {micros(end)} GROUP BY {by})
        SELECT {wanted} FROM newest JOIN {_rows(path)} AS wide ON wide.file_row_number = newest.number
        ORDER BY newest.number"""


def _rows(path: str) -> str:
    """SQL table of a file's rows, numbered by column file_row_number."""
    file = path.replace("'", "''")
    return f"read_parquet('{file}', file_row_number = true)"


def _created(column: str | None) -> str:
    """SQL of the creation time in us; a row without one was created before all others."""
    return f'coalesce(epoch_us("{column}"::TIMESTAMPTZ), -(2::BIGINT ** 62)::BIGINT)' if column else "0"
