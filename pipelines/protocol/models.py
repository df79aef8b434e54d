"""The models of one fit, read from data/models, in the shape that the request path takes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.errors import DataError
from feature_repo.params import load
from feature_repo.places import existing, fit_dir
from serving.stages.fitted import Models, read_table
from serving.stages.index import IndexParams, build
from serving.stages.tower import UserTower
from training.dataset import read_catalogue

# Where each file of a bundle comes from, relative to data/models/<fit>.
TABLES = {
    "user_tower.onnx": "two_tower",
    "item_tower.onnx": "two_tower",
    "item_words.json": "two_tower",
    "item_vectors.npy": "two_tower",
    "covisit.npz": "item_item",
    "next.npz": "item_item",
    "ease.npz": "item_item",
    "together.npz": "item_item",
    "carted.npz": "item_item",
    "links.npz": "item_item",
    "attraction.npy": "item_item",
    "als_items.npy": "als",
}


def fit_file(fit: str, name: str) -> Path:
    """Where stage outputs of `fit` hold the bundle file `name`. Raises DataError if it is not there."""
    return existing(fit_dir(fit) / TABLES[name] / name, f"{TABLES[name]} --fit {fit}")


def load_models(fit: str) -> Models:
    """The models of `fit` ("prior" or "final") over the whole catalogue, in the order of items.parquet.

    Raises DataError for a file that is missing or damaged.
    """

    def read(name: str, reader: Callable[[Path], Any]) -> Any:
        path = fit_file(fit, name)
        try:
            return reader(path)
        except Exception as error:  # each format's reader raises its own types
            step = f"run `endcap {TABLES[name]} --fit {fit}`"
            raise DataError(path, f"cannot be read: {error}", next_step=step) from error

    params = load("index", IndexParams)
    vectors, factors = read("item_vectors.npy", np.load), read("als_items.npy", np.load).astype(np.float32)
    return Models(
        ids=read_catalogue().item_ids,
        item_vectors=vectors,
        index=build(vectors, params),
        tower=read("user_tower.onnx", UserTower),
        covisit=read("covisit.npz", read_table),
        next=read("next.npz", read_table),
        ease=read("ease.npz", read_table),
        together=read("together.npz", read_table),
        carted=read("carted.npz", read_table),
        links=read("links.npz", read_table),
        attraction=read("attraction.npy", np.load),
        als_items=factors,
        factors=build(factors, params),
    )
