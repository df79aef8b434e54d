"""What a fit leaves behind for serving: both towers as ONNX, a table of item vectors, the curves."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

from feature_repo.events import HISTORY
from feature_repo.picture import Figure
from training.two_tower.fit_towers import Epoch, FittedTowers
from training.two_tower.item_features import INPUTS as ITEM_INPUTS
from training.two_tower.item_features import Vocabulary
from training.two_tower.towers import ItemTower, ServedTower

INPUTS = ("items", "ages", "kinds", "context", "newborn")


def write_towers(fitted: FittedTowers, item_ids: Sequence[str], words: Vocabulary, folder: Path) -> None:
    """user_tower.onnx, item_tower.onnx with item_words.json, item_vectors.npy, item_ids.json, curves.csv and
    curves.png into `folder`; `words` are those that the items were coded by.
    """
    folder.mkdir(parents=True, exist_ok=True)
    export_onnx(fitted.served, folder / "user_tower.onnx")
    export_content(fitted.items, folder / "item_tower.onnx")
    (folder / "item_words.json").write_text(json.dumps(asdict(words)))
    np.save(folder / "item_vectors.npy", fitted.item_vectors)
    (folder / "item_ids.json").write_text(json.dumps(list(item_ids)))
    write_curves(fitted.curves, folder)


def export_onnx(served: ServedTower, path: Path) -> None:
    """One file with its weights, any batch size, a history of exactly 20 places."""
    example = (
        torch.zeros(2, HISTORY, dtype=torch.int64),
        torch.zeros(2, HISTORY),
        torch.zeros(2, HISTORY, dtype=torch.int64),
        torch.zeros(2, 3, dtype=torch.int64),
        torch.zeros(2, HISTORY, served.table.shape[1]),
    )
    _export(served, example, INPUTS, path)


class ContentTower(torch.nn.Module):
    """The item tower for items that the fit has not met: no identity, not normalised."""

    def __init__(self, tower: ItemTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.tower.content(*inputs)


def export_content(tower: ItemTower, path: Path) -> None:
    """The item tower in one file, any number of items; inputs as item_features.INPUTS."""
    example = tuple(getattr(tower, name)[:1] for name in ITEM_INPUTS)
    _export(ContentTower(tower), example, ITEM_INPUTS, path)


def _export(model: torch.nn.Module, example: tuple[Tensor, ...], inputs: Sequence[str], path: Path) -> None:
    torch.onnx.export(
        model.eval(),
        example,
        str(path),
        input_names=list(inputs),
        output_names=["vector"],
        dynamic_axes={name: {0: "batch"} for name in (*inputs, "vector")},
        opset_version=17,
        dynamo=False,  # the other exporter puts the weights into a second file
    )


def write_curves(curves: Sequence[Epoch], folder: Path) -> None:
    """curves.csv, one row per epoch, and the picture of it."""
    rows = [{name: round(float(value), 6) for name, value in asdict(epoch).items()} for epoch in curves]
    with (folder / "curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "epoch": int(row["epoch"])} for row in rows)
    matplotlib.use("agg")
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [row["loss"] for row in rows], marker="o")
    left.set(title="training loss", xlabel="epoch")
    for name in ("ndcg_at_12", "recall_at_120"):
        right.plot(epochs, [row[name] for row in rows], marker="o", label=name)
    right.set(title="next new item, held-out days", xlabel="epoch", ylim=(0, 1))
    right.legend()
    figure.savefig(folder / "curves.png", dpi=110)
