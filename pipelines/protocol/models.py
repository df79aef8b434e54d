"""The models of one fit, read from data/models, in the shape that the request path takes them."""

from pathlib import Path

import numpy as np

from feature_repo.params import load
from feature_repo.places import existing, fit_dir
from serving.stages.index import IndexParams, build
from serving.stages.retrieve import Models, read_table
from serving.stages.tower import UserTower
from training.dataset import read_catalogue

# Where each file of a bundle comes from, relative to data/models/<fit>.
TABLES = {
    "user_tower.onnx": "two_tower",
    "item_vectors.npy": "two_tower",
    "covisit.npz": "item_item",
    "ease.npz": "item_item",
    "als_items.npy": "als",
}


def fit_file(fit: str, name: str) -> Path:
    """Where stage outputs of `fit` hold the bundle file `name`. Raises DataError if it is not there."""
    return existing(fit_dir(fit) / TABLES[name] / name, f"{TABLES[name]} --fit {fit}")


def load_models(fit: str) -> Models:
    """The models of `fit` ("prior" or "final") over the whole catalogue, in the order of items.parquet."""
    vectors = np.load(fit_file(fit, "item_vectors.npy"))
    return Models(
        ids=read_catalogue().item_ids,
        item_vectors=vectors,
        index=build(vectors, load("index", IndexParams)),
        tower=UserTower(fit_file(fit, "user_tower.onnx")),
        covisit=read_table(fit_file(fit, "covisit.npz")),
        ease=read_table(fit_file(fit, "ease.npz")),
        als_items=np.load(fit_file(fit, "als_items.npy")).astype(np.float32),
    )
