"""`endcap ranker_data`: the ranker's training set, made by the request path itself.

At every query point between rank_from and test_from the prior fit (which has seen nothing after rank_from)
brings its candidates, and the assembler that serves makes their 28 columns. Label 1: the shopper came to
the item later in the visit. Queries whose candidates hold none of these teach nothing and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.errors import DataError
from feature_repo.params import load, root, shop
from feature_repo.vectorize import COLUMNS, assemble, history
from pipelines.fits import load_fit
from pipelines.queries import make_queries, product_events
from pipelines.visits import visits
from serving.retrieve import Retrieve, retrieve
from serving.rules import eligibility

OUT = "data/features/ranker_training.parquet"
SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # train or valid
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        *(pa.field(name, pa.float32()) for name in COLUMNS),
    ]
)
CHUNK = 500  # queries per row group


@dataclass(frozen=True)
class QueryParams:
    """Section `queries` of params.yaml."""

    seed: int
    ranker: int  # queries of the ranker's training and validation
    evaluate: int  # queries of the evaluation


def main() -> None:
    """Candidates and their 28 columns at past query points: the ranker's training set."""
    active, params = shop(), load("queries", QueryParams)
    models, blend = load_fit("prior"), load("retrieve", Retrieve)
    queries = make_queries(
        product_events(root() / "data" / "raw"),
        active.rank_from,
        active.test_from,
        params.ranker,
        np.random.default_rng(params.seed),
    )
    valid_from = round(active.valid_from.timestamp() * 1e6)
    kept = 0
    part = root() / (OUT + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(part, SCHEMA, compression="zstd") as writer:
        chunk: list[pa.RecordBatch] = []
        for query, request, visitor, matrix in visits(queries, models.ids, blend.k, "ranker data"):
            past = history(visitor, matrix)
            mask = eligibility(request, visitor, matrix).mask
            found = retrieve(blend, models, visitor, past, matrix, mask)
            label = np.array([matrix.ids[row] in query.relevant for row in found.rows], np.int8)
            if not label.any():
                continue
            columns = assemble(visitor, past, matrix, found.rows, found.scores)
            split = "train" if query.now < valid_from else "valid"
            chunk.append(_batch(query.id, split, [matrix.ids[row] for row in found.rows], label, columns))
            kept += 1
            if len(chunk) == CHUNK:
                writer.write_table(pa.Table.from_batches(chunk))
                chunk = []
        if chunk:
            writer.write_table(pa.Table.from_batches(chunk))
    if not kept:
        problem = f"no query of {len(queries)} has a wanted item among its candidates"
        raise DataError(OUT, problem, next_step="check the cuts of the shop and the fit `prior`")
    part.replace(root() / OUT)
    print(f"{OUT}: {kept} of {len(queries)} queries have a wanted item among {blend.k} candidates")


def _batch(
    query: int, split: str, items: list[str], label: np.ndarray, columns: np.ndarray
) -> pa.RecordBatch:
    n = len(items)
    arrays = [pa.array(np.full(n, query)), pa.array([split] * n), pa.array(items), pa.array(label)]
    arrays += [pa.array(column, from_pandas=True) for column in columns.T]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
