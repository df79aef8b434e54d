"""`endcap ranker_data`: the ranker's training set, made by the request path itself.

At every query point between rank_from and test_from the prior fit (which has seen nothing after rank_from)
brings its candidates, and the assembler that serves makes their 28 columns. Label: the strongest contact
that the shopper has with the item later in the visit, 1 view, 2 cart, 3 purchase, 0 none. Queries whose
candidates hold none of these teach nothing and are left out; a shop without any has an empty set, and no
trees.

With `queries.source: logged` the rows are what serving logged in that span instead (logged.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_repo.assemble.vectorize import COLUMNS, assemble
from feature_repo.assemble.visitor import history
from feature_repo.clock import micros
from feature_repo.errors import ParamsError
from feature_repo.files import chunks, write_parquet
from feature_repo.params import load, shop
from feature_repo.places import RANKER_TRAINING, SERVED_LOG, at
from pipelines.protocol.chosen import learned
from pipelines.protocol.known import Known, answers, query_points
from pipelines.protocol.logged import Example, logged_examples
from pipelines.protocol.models import load_models
from pipelines.protocol.queries import Query, QueryParams, product_events
from serving.stages.eligibility import eligibility
from serving.stages.fitted import Models
from serving.stages.retrieve import Retrieve, retrieve

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


def main() -> None:
    """Candidates and their 28 columns at past query points: the ranker's training set."""
    active, params = shop(), load("queries", QueryParams)
    if params.source not in SOURCES:
        allowed = ", ".join(SOURCES)
        raise ParamsError(f"queries.source: {params.source!r} is not allowed; allowed: {allowed}")
    if params.source == "logged":
        span = active.rank_from, active.test_from
        examples, left = logged_examples(at(SERVED_LOG), product_events(), *span, params.wait_hours)
        print(
            f"{SERVED_LOG}: left out are {left.unfinished:,} answers that had not waited "
            f"{params.wait_hours:g} h when the span or the events ended, and {left.other_schema:,} of "
            "another feature schema"
        )
    else:
        rng = np.random.default_rng(params.seed)
        queries = query_points(active.rank_from, active.test_from, params.ranker, rng)
        examples = recomputed_examples(queries, load_models("prior"), learned(), params.processes)
    kept = write(examples, micros(active.valid_from), at(RANKER_TRAINING))
    of = f"{kept:,} of {len(queries):,} queries" if params.source == "recomputed" else f"{kept:,} answers"
    print(f"{RANKER_TRAINING}: {of}, {params.source}, have a wanted item among their candidates")


def recomputed_examples(
    queries: Sequence[Query], models: Models, blend: Retrieve, processes: int = 1
) -> Iterator[Example]:
    """Each query as serving would have met it then, at least one of whose candidates was wanted."""

    def example(known: Known) -> Example | None:
        query, request, visitor, matrix = known
        past = history(visitor, matrix)
        may = eligibility(request, visitor, matrix, blend.bought_days).may
        found = retrieve(blend, models, visitor, past, matrix, may)
        items = [matrix.ids[row] for row in found.rows]
        label = np.array([query.kinds.get(item, 0) for item in items], np.int8)
        if not label.any():
            return None
        columns = assemble(visitor, past, matrix, found.rows, found.scores)
        return Example(query.id, query.now, items, label, columns)

    asked = answers(queries, models.ids, blend.k, "ranker data", example, processes)
    return (found for found in asked if found is not None)


def write(examples: Iterable[Example], valid_from: int, path: Path) -> int:
    """Write SCHEMA, from `valid_from` (us) on as the split `valid`; how many examples. All or nothing."""
    kept = 0

    def tables() -> Iterator[pa.Table]:
        nonlocal kept
        for some in chunks(examples, CHUNK):
            kept += len(some)
            splits = ("train" if example.now < valid_from else "valid" for example in some)
            yield pa.Table.from_batches(map(_batch, some, splits))

    write_parquet(path, SCHEMA, tables())
    return kept


def _batch(example: Example, split: str) -> pa.RecordBatch:
    n = len(example.items)
    arrays = [pa.array(np.full(n, example.id)), pa.array([split] * n), pa.array(example.items)]
    arrays += [pa.array(example.label)]
    arrays += [pa.array(column, from_pandas=True) for column in example.columns.T]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
