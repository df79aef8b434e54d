"""`endcap ranker`: data/features/ranker_training.parquet -> data/models/ranker, tracked in MLflow."""

import shutil
from dataclasses import asdict

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.files import write_json
from feature_repo.params import load
from feature_repo.places import NO_TREES, RANKER, RANKER_TRAINING, SUFFIXES, TREES, TRIAL, at, existing
from training.ranking import importance
from training.ranking.calibration import calibrate
from training.ranking.examples import Examples, as_retrieved, fit
from training.ranking.objective import RankerParams
from training.tracking import tracked


def main() -> None:
    """Fit the learning-to-rank model on the 28 columns; how long it learns by NDCG@12 on validation.

    Where there is nothing to learn from, or the model lists no better than retrieval did, none is kept.
    """
    params = load("ranker", RankerParams)
    train, valid = read("train"), read("valid")
    folder = at(RANKER)
    shutil.rmtree(folder, ignore_errors=True)  # pictures of an earlier fit
    folder.mkdir(parents=True)
    with tracked("ranker", asdict(params), [at(RANKER_TRAINING)], "ranker") as run:
        blend = as_retrieved(valid, params.k)
        fitted = fit(train, valid, params) if len(train.group) and len(valid.group) > 1 else None
        kept = fitted if fitted and max(fitted.curve) > blend else None
        suffix = SUFFIXES[params.kind if kept else "lightgbm"]
        files = [(folder / place.name).with_suffix(suffix) for place in (TREES, TRIAL)]
        if kept:
            for file, model in zip(files, (kept.model, kept.trial), strict=True):
                file.write_bytes(model)
            told = f"{kept.best_round} {kept.unit}, NDCG@12 {max(kept.curve):.4f} among candidates of "
            told += f"validation (as retrieved: {blend:.4f})"
        else:
            why = f"{len(train.group)} training and {len(valid.group)} validation queries"
            if fitted:
                why = f"NDCG@12 {max(fitted.curve):.4f} with {fitted.unit}, {blend:.4f} as retrieved, "
                why += "on validation"
            for file in files:
                file.write_text(f"{NO_TREES}{why}\n")
            told = f"no trees, the order of retrieval serves: {why}"
        metrics = {
            "ndcg_at_12": float(max(kept.curve)) if kept else blend,
            "blend_ndcg_at_12": blend,
            fitted.unit if fitted else "trees": kept.best_round if kept else 0,
            "train_queries": len(train.group),
            "valid_queries": len(valid.group),
        }
        if fitted:
            calibration = calibrate(fitted.scores, valid.label > 0, valid.group)
            metrics |= {"brier": calibration.brier, "brier_plain": calibration.plain}
        write_json(folder / "metrics.json", metrics)
        run.metrics({name: float(value) for name, value in metrics.items()})
        run.artifact(files[0])
        if fitted:
            for i, value in enumerate(fitted.curve, 1):
                if i % 10 == 0 or i == fitted.best_round:
                    run.metrics({"valid_ndcg_at_12": value}, step=i)
            for path in importance.write(fitted, calibration, folder):
                run.artifact(path)
    print(f"{RANKER}: {told}")


def read(split: str) -> Examples:
    """The examples of `split`, maybe none. Raises DataError when the file or a column of it is missing."""
    path = existing(RANKER_TRAINING, "ranker_data", "query_id", "split", "label", *COLUMNS)
    table = pq.read_table(path, filters=pc.field("split") == split)
    matrix = np.empty((table.num_rows, len(COLUMNS)), np.float32)
    for i, name in enumerate(COLUMNS):
        matrix[:, i] = table[name].to_numpy()  # null becomes NaN
    query = table["query_id"].to_numpy()
    starts = np.flatnonzero(np.diff(query, prepend=-1))
    return Examples(matrix, table["label"].to_numpy(), np.diff(starts, append=len(query)))
