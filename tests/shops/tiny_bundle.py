"""A small release bundle of real parts: a torch tower exported to ONNX, LightGBM trees, CSR tables.

Its numbers mean nothing, its formats are those of production. `python tests/shops/tiny_bundle.py F 12000 300`
writes one of production's size for the benchmarks (12,000 items, 300 trees).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from scipy import sparse
from shops.tower_inputs import PARAMS as PARAMS_OF_TOWER
from torch import nn

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.vectorize import COLUMNS
from feature_repo.events import ITEM_SCHEMA
from feature_repo.features.catalogue import SHOWN
from serving.release import bundle
from training.dataset import Catalogue
from training.two_tower.encoder import WIDTH
from training.two_tower.export import export_content
from training.two_tower.item_features import Vocabulary, item_features
from training.two_tower.towers import ItemTower

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
DEPARTMENTS = ("Apparel", "Office", "Drinkware", "Bags", "Electronics")


class Tower(nn.Module):
    """Mean of the history's item embeddings, shifted by the context; inputs and output as the real one."""

    def __init__(self, items: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(items + 1, width, padding_idx=0)
        self.context = nn.Linear(3, width)

    def forward(
        self,
        items: torch.Tensor,
        ages: torch.Tensor,
        kinds: torch.Tensor,
        context: torch.Tensor,
        newborn: torch.Tensor | None = None,
    ) -> torch.Tensor:
        weight = (kinds > 0) / (1.0 + ages / 86_400)  # (batch, 20)
        most = self.embed.num_embeddings - 1
        vectors = self.embed(items.clamp(max=most))
        if newborn is not None:
            vectors = torch.where((items <= most)[..., None], vectors, newborn)
        pooled = (vectors * weight[..., None]).sum(1) + 0.1 * self.context(context.float())
        return nn.functional.normalize(pooled, dim=-1)  # (batch, width)


def catalogue(n: int) -> pa.Table:
    """`n` items of data/raw/items.parquet: five departments, prices 5 to 104, every tenth out of stock."""
    rows: list[dict[str, Any]] = [
        {
            "item_id": f"item-{i}",
            "title": f"Item {i}",
            "category_path": f"Home/{DEPARTMENTS[i % 5]}/Kind {i % 15}",
            "brand": f"brand {i % 7}",
            "price": 5.0 + i % 100,
            "currency": "EUR",
            "margin": 0.1 + (i % 5) / 10,
            "stock": 0 if i % 10 == 9 else 40,
            "accessories": [],
            "image_path": f"/picture/item-{i}.svg",
            "url": f"/product/item-{i}",
        }
        for i in range(n)
    ]
    return pa.Table.from_pylist(rows, schema=ITEM_SCHEMA)


def matrix(table: pa.Table) -> ItemMatrix:
    """The item matrix of a catalogue whose items nobody has touched."""
    names = (*SHOWN, "margin", "stock")
    columns: dict[str, Any] = {name: table[name].to_pylist() for name in names}
    return ItemMatrix(table["item_id"].to_pylist(), columns | {"available_from": [None] * len(table)})


def settings() -> dict[str, Any]:
    """What decides an answer, of the project's params.yaml."""
    params = yaml.safe_load(PARAMS.read_text())
    sections = ("retrieve", "clicks", "diversify", "surfaces")
    return {"feature_service": "ranker"} | {name: params[name] for name in sections}


def parts(folder: Path, n: int = 60, trees: int = 10, seed: int = 0) -> Path:
    """Write the files of a bundle to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    table = catalogue(n)
    ids = table["item_id"].to_pylist()
    vectors = rng.normal(size=(n, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pq.write_table(table, folder / "catalogue.parquet")
    pq.write_table(table.slice(0, 0), folder / "reference.parquet")
    (folder / "item_ids.json").write_bytes(orjson.dumps(ids))
    (folder / "rails.json").write_bytes(orjson.dumps({"popular": ids[::-1]}))
    np.save(folder / "item_vectors.npy", vectors)
    np.save(folder / "attraction.npy", rng.normal(scale=0.3, size=n).astype(np.float32))
    np.save(folder / "als_items.npy", rng.normal(size=(n, 16)).astype(np.float32))
    for name in bundle.TABLES:
        sparse.save_npz(folder / f"{name}.npz", _neighbours(rng, n, min(n // 3, 200)))
    _export(folder / "user_tower.onnx", vectors, seed)
    _export_item_tower(folder, table, vectors.shape[1], seed)
    _grow(folder / "ranker.txt", trees, rng)
    return folder


def make(home: Path, n: int = 60, trees: int = 10, seed: int = 0, **fields: Any) -> Path:
    """A bundle under <home>/data/bundles; its path. A home without params.yaml gets the project's."""
    if not (home / "params.yaml").exists():
        shutil.copyfile(PARAMS, home / "params.yaml")
    built = parts(home / "parts" / str(seed), n, trees, seed)
    return bundle.write(built, {**settings(), **fields}, home / "data" / "bundles")


def _neighbours(rng: np.random.Generator, n: int, k: int) -> sparse.csr_matrix:
    columns = np.concatenate([rng.choice(n, k, replace=False) for _ in range(n)])
    weights = rng.exponential(size=n * k).astype(np.float32)
    return sparse.csr_matrix((weights, columns, np.arange(0, n * k + 1, k)), shape=(n, n))


def _export(file: Path, vectors: np.ndarray[Any, Any], seed: int) -> None:
    torch.manual_seed(seed)
    tower = Tower(*vectors.shape).eval()
    with torch.no_grad():
        tower.embed.weight[1:] = torch.from_numpy(vectors)
    inputs: Mapping[str, torch.Tensor] = {
        "items": torch.zeros(1, 20, dtype=torch.int64),
        "ages": torch.zeros(1, 20),
        "kinds": torch.zeros(1, 20, dtype=torch.int64),
        "context": torch.zeros(1, 3, dtype=torch.int64),
        "newborn": torch.zeros(1, 20, vectors.shape[1]),
    }
    torch.onnx.export(
        tower,
        tuple(inputs.values()),
        str(file),
        dynamo=False,  # one file; the other exporter writes the weights beside it
        input_names=list(inputs),
        output_names=["vector"],
        dynamic_axes={name: {0: "batch"} for name in (*inputs, "vector")},
    )


def _export_item_tower(folder: Path, table: pa.Table, width: int, seed: int) -> None:
    """A real item tower that was never fitted: random weights, the words of this catalogue, no text."""
    torch.manual_seed(seed)
    words = Vocabulary.of(Catalogue(table))
    features = item_features(Catalogue(table), np.zeros((len(table), WIDTH), np.float32), words)
    tower = ItemTower(features, replace(PARAMS_OF_TOWER, dim=width))
    export_content(tower, folder / "item_tower.onnx")
    (folder / "item_words.json").write_bytes(orjson.dumps(asdict(words)))


def _grow(file: Path, trees: int, rng: np.random.Generator) -> None:
    """LambdaMART over random lists of 20, in which the price and two scores decide."""
    x = rng.normal(size=(4000, len(COLUMNS)))
    x[rng.random(x.shape) < 0.1] = np.nan
    gain = np.nan_to_num(x[:, COLUMNS.index("price_log")] + x[:, COLUMNS.index("ease_score")])
    label = np.clip(np.digitize(gain + rng.normal(size=len(gain)), (0.0, 1.0, 2.0)), 0, 3)
    options = {"objective": "lambdarank", "num_leaves": 31, "num_threads": 1, "verbose": -1, "seed": 0}
    data = lightgbm.Dataset(x, label, group=[20] * 200, feature_name=list(COLUMNS))
    lightgbm.train(options, data, trees).save_model(file)


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
