"""What was listed for every query of an evaluation: two of them can be compared query by query.

`endcap evaluate` writes it, `endcap compare` reads it. A query is (session_id, now); the same data and the
same section `queries` give the same queries.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.files import write_parquet
from pipelines.protocol.queries import Query

SLICES = ("first_query", "later_query", "known_user", "anonymous", "cold_item")
MEASURES = ("ndcg_at_12", "recall_at_12", "recall_at_120")
SCHEMA = pa.schema(
    [
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("now", pa.int64(), nullable=False),  # us
        pa.field("after", pa.string(), nullable=False),  # the item of the newest contact
        pa.field("wanted", pa.list_(pa.string()), nullable=False),
        pa.field("listed", pa.list_(pa.string()), nullable=False),  # ours, best first
        *(pa.field(name, pa.float32(), nullable=False) for name in MEASURES),
        *(pa.field(name, pa.bool_(), nullable=False) for name in SLICES),
    ]
)


def write_results(
    path: Path,
    queries: Sequence[Query],
    listed: Sequence[Sequence[str]],
    measures: Mapping[str, npt.ArrayLike],
    slices: Sequence[Mapping[str, bool]],
) -> int:
    """One row per query in their order; `measures` and `slices` as named above. How many rows."""
    columns: dict[str, Any] = {
        "session_id": [query.session_id for query in queries],
        "now": [query.now for query in queries],
        "after": [query.history[-1] for query in queries],
        "wanted": [sorted(query.relevant) for query in queries],
        "listed": [list(items) for items in listed],
        **{name: np.asarray(measures[name], np.float32) for name in MEASURES},
        **{name: [bool(found[name]) for found in slices] for name in SLICES},
    }
    return write_parquet(path, SCHEMA, [pa.table(columns, SCHEMA)])
