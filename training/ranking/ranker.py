"""`endcap ranker`: data/features/ranker_training.parquet -> data/models/ranker, tracked in MLflow."""

from dataclasses import asdict

import numpy as np
import orjson
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.errors import DataError
from feature_repo.params import load
from feature_repo.places import RANKER, RANKER_TRAINING, TREES, at, existing
from training.ranking import importance
from training.ranking.lambdarank import Examples, RankerParams, fit
from training.tracking import tracked


def main() -> None:
    """Fit the learning-to-rank model on the 28 columns; the number of trees by NDCG@12 on validation."""
    params = load("ranker", RankerParams)
    folder = at(RANKER)
    folder.mkdir(parents=True, exist_ok=True)
    train, valid = read("train"), read("valid")
    with tracked("ranker", asdict(params), [at(RANKER_TRAINING)], "ranker") as run:
        fitted = fit(train, valid, params)
        fitted.booster.save_model(str(folder / TREES.name))
        metrics = {
            "ndcg_at_12": float(max(fitted.curve)),
            "trees": fitted.best_round,
            "train_queries": len(train.group),
            "valid_queries": len(valid.group),
        }
        (folder / "metrics.json").write_bytes(orjson.dumps(metrics, option=orjson.OPT_INDENT_2))
        for i, value in enumerate(fitted.curve, 1):
            if i % 10 == 0 or i == fitted.best_round:
                run.metrics({"valid_ndcg_at_12": value}, step=i)
        run.metrics({k: float(v) for k, v in metrics.items()})
        for path in (folder / TREES.name, *importance.write(fitted, folder)):
            run.artifact(path)
    print(
        f"{RANKER}: {fitted.best_round} trees, NDCG@12 {max(fitted.curve):.4f} among candidates of validation"
    )


def read(split: str) -> Examples:
    """The examples of `split`. Raises DataError when the file is missing or has none."""
    table = pq.read_table(existing(RANKER_TRAINING, "ranker_data"), filters=pc.field("split") == split)
    if table.num_rows == 0:
        raise DataError(
            RANKER_TRAINING, f"has no row of split '{split}'", next_step="move the cuts of the shop"
        )
    matrix = np.empty((table.num_rows, len(COLUMNS)), np.float32)
    for i, name in enumerate(COLUMNS):
        matrix[:, i] = table[name].to_numpy()  # null becomes NaN
    query = table["query_id"].to_numpy()
    starts = np.flatnonzero(np.diff(query, prepend=-1))
    return Examples(matrix, table["label"].to_numpy(), np.diff(starts, append=len(query)))
