"""`endcap ranker_data`: the ranker's training set, made by the request path itself.

At every query point between rank_from and test_from the prior fit (which has seen nothing after rank_from)
brings its candidates, and the assembler that serves makes their 28 columns. Label 1: the shopper came to
the item later in the visit. Queries whose candidates hold none of these teach nothing and are left out.

With `queries.source: logged` the rows are what serving logged in that span instead (logged.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.assemble.vectorize import COLUMNS, assemble
from feature_repo.assemble.visitor import history
from feature_repo.errors import DataError, ParamsError
from feature_repo.features.sources import served_folder
from feature_repo.params import load, root, shop
from pipelines.protocol.known import visits
from pipelines.protocol.logged import Example, logged_examples
from pipelines.protocol.models import load_fit
from pipelines.protocol.queries import Query, make_queries, product_events
from serving.stages.retrieve import Retrieve, Retrievers, retrieve
from serving.stages.rules import eligibility

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


SOURCES = ("recomputed", "logged")


@dataclass(frozen=True)
class QueryParams:
    """Section `queries` of params.yaml."""

    source: str  # of the ranker's training set, one of SOURCES
    wait_hours: float  # logged: how long after an answer a contact of the visit counts as its label
    seed: int
    ranker: int  # queries of the ranker's training and validation
    evaluate: int  # queries of the evaluation
    reference: int  # answers of the sample that live ones are compared with


def main() -> None:
    """Candidates and their 28 columns at past query points: the ranker's training set."""
    active, params = shop(), load("queries", QueryParams)
    if params.source not in SOURCES:
        allowed = ", ".join(SOURCES)
        raise ParamsError(f"queries.source: {params.source!r} is not allowed; allowed: {allowed}")
    events = product_events(root() / "data" / "raw")
    if params.source == "logged":
        span = active.rank_from, active.test_from
        examples, left = logged_examples(served_folder(), events, *span, params.wait_hours)
        print(
            f"data/logs/served: left out are {left.unfinished:,} answers that had not waited "
            f"{params.wait_hours:g} h when the span or the events ended, and {left.other_schema:,} of "
            "another feature schema"
        )
    else:
        rng = np.random.default_rng(params.seed)
        queries = make_queries(events, active.rank_from, active.test_from, params.ranker, rng)
        examples = recomputed_examples(queries, load_fit("prior"), load("retrieve", Retrieve))
    kept = write(examples, round(active.valid_from.timestamp() * 1e6), root() / OUT)
    print(f"{OUT}: {kept} queries, {params.source}, have a wanted item among their candidates")


def recomputed_examples(queries: Sequence[Query], models: Retrievers, blend: Retrieve) -> Iterator[Example]:
    """Each query as serving would have met it then, at least one of whose candidates was wanted."""
    for query, request, visitor, matrix in visits(queries, models.ids, blend.k, "ranker data"):
        past = history(visitor, matrix)
        mask = eligibility(request, visitor, matrix).mask
        found = retrieve(blend, models, visitor, past, matrix, mask)
        items = [matrix.ids[row] for row in found.rows]
        label = np.array([item in query.relevant for item in items], np.int8)
        if label.any():
            columns = assemble(visitor, past, matrix, found.rows, found.scores)
            yield Example(query.id, query.now, items, label, columns)


def write(examples: Iterable[Example], valid_from: int, path: Path) -> int:
    """Write SCHEMA, from `valid_from` (us) on as the split `valid`; how many examples. All or nothing."""
    kept = 0
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(part, SCHEMA, compression="zstd") as writer:
        chunk: list[pa.RecordBatch] = []
        for example in examples:
            chunk.append(_batch(example, "train" if example.now < valid_from else "valid"))
            kept += 1
            if len(chunk) == CHUNK:
                writer.write_table(pa.Table.from_batches(chunk))
                chunk = []
        if chunk:
            writer.write_table(pa.Table.from_batches(chunk))
    if not kept:
        part.unlink()
        problem = "no query has a wanted item among its candidates"
        raise DataError(OUT, problem, next_step="check the cuts of the shop, the fit `prior` or the log")
    part.replace(path)
    return kept


def _batch(example: Example, split: str) -> pa.RecordBatch:
    n = len(example.items)
    arrays = [pa.array(np.full(n, example.id)), pa.array([split] * n), pa.array(example.items)]
    arrays += [pa.array(example.label)]
    arrays += [pa.array(column, from_pandas=True) for column in example.columns.T]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
