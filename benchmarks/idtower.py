"""The project's two towers on lists of bare ids: no content, no kinds, no times but order.

What differs from a shop's fit: items are asked again (revisits), the softmax is exact over all items with
products in bfloat16, which processors with AMX multiply five to eight times as fast as float32, and
positions before a visit's first contact, which nobody asks here, are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.contract import Rows, Visits
from torch import Tensor
from torch.nn import functional as F

from feature_repo.clock import DAY_US
from feature_repo.events import HISTORY
from feature_repo.params import load
from training.dataset import Contacts
from training.two_tower.fit_towers import FINAL_RATE, FittedTowers, Trainer, deterministic
from training.two_tower.item_features import LEVELS, ItemFeatures
from training.two_tower.towers import ItemTower, TwoTowerParams
from training.two_tower.windows import Batch, merge_repeats

BLOCK = 4096  # items whose logits are made at once
STEP_US = 1000  # between the contacts of a visit; a visit a day, so that none runs into the next
REFIT_RATE = 0.3  # of the learning rate, where the epochs over everything begin
Floats = np.ndarray[Any, np.dtype[np.float32]]


def params(dim: int, batch: int, epochs: int, threads: int) -> TwoTowerParams:
    """`two_tower:` with what was measured for sessions of bare ids."""
    return dataclasses.replace(
        load("two_tower", TwoTowerParams),
        threads=threads,
        dim=dim,
        heads=4,
        dropout=0.25,
        item_dropout=0.25,
        id_dropout=0.0,
        weight_decay=0.05,
        epochs=epochs,
        most_epochs=epochs,
        batch_tokens=batch,
        revisits=True,
        forget_rate=0.0,
    )


def contacts_of(visits: Visits) -> Contacts:
    """Views of catalogue rows; each visit is its own owner, without context, and begins on its own day."""
    length = np.diff(visits.starts)
    session = np.repeat(np.arange(len(visits)), length)
    place = np.arange(length.sum()) - np.repeat(visits.starts[:-1], length)
    return Contacts(
        item=visits.items.astype(np.int32),
        kind=np.ones(len(session), np.int8),
        ts=session * DAY_US + place * STEP_US,
        session=session.astype(np.int32),
        owner=session.astype(np.int32),
        context=np.zeros((len(session), 3), np.int64),
    )


def no_content(items: int) -> ItemFeatures:
    """Features of a catalogue of which nothing but the ids is known."""
    none, text = np.zeros(items, np.int64), np.zeros((items, 1), np.float32)
    return ItemFeatures(text, text, np.zeros((items, LEVELS), np.int64), none, none, none)


class Identities(ItemTower):
    """An item is its identity: what is the same for all items is not computed for each."""

    def content(self, *inputs: Tensor) -> Tensor:
        return inputs[0].new_zeros(1, self.identity.embedding_dim)


class ExactSoftmax(torch.autograd.Function):
    """Mean cross entropy of `queries` (n, d) against all `vectors` (m, d), both of length 1.

    No maximum is taken off the logits: a scaled cosine is at most `scale`. The gradients are made on the way,
    for the weights exp(logit) are then at hand; (n, m) of them are kept, in bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, vectors: Tensor, targets: Tensor, scale: float) -> Tensor:
        small, table, n = (scale * queries).bfloat16(), vectors.bfloat16(), len(queries)
        beside = torch.cat([table, table.new_ones(len(table), 1)], dim=1)  # so that a product sums, too
        sums = queries.new_zeros(n, beside.shape[1])
        blocks = []
        for part, wide in zip(table.split(BLOCK), beside.split(BLOCK), strict=True):
            weights = (small @ part.T).exp_()
            sums += weights @ wide
            blocks.append(weights)
        total = sums[:, -1]
        share = 1 / (n * total[:, None])
        weighed = (small * share).bfloat16()
        to_vectors = torch.cat([weights.T @ weighed for weights in blocks]).float()
        to_vectors.index_add_(0, targets, queries, alpha=-scale / n)
        to_queries = scale * (sums[:, :-1] * share - vectors[targets] / n)
        ctx.save_for_backward(to_queries, to_vectors)
        return (total.log() - scale * (queries * vectors[targets]).sum(1)).mean()

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, Tensor, None, None]:
        to_queries, to_vectors = ctx.saved_tensors
        return above[0] * to_queries, above[0] * to_vectors, None, None


class IdTrainer(Trainer):
    """The project's trainer with the exact softmax; its state can be written and read again."""

    def __init__(self, visits: Visits, params: TwoTowerParams) -> None:
        features = no_content(visits.n)
        super().__init__(merge_repeats(contacts_of(visits), revisits=True), features, params)
        self.model.items = Identities(features, params).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
        )

    def _batches(self, rng: np.random.Generator, forget_rate: float) -> Iterator[Batch]:
        for batch in super()._batches(rng, forget_rate):
            yield dataclasses.replace(batch, target=np.where(batch.items > 0, batch.target, -1))

    def _loss(self, batch: Batch, chosen: np.ndarray[Any, Any]) -> Tensor:
        table = self.model.items()
        queries = self.model.queries(table, batch, chosen).float()
        known = F.normalize(table[self.warm], dim=-1)
        targets = self._on(self.column[batch.target[chosen]])
        loss: Tensor = ExactSoftmax.apply(queries, known, targets, self.params.scale)
        return loss

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "torch": torch.get_rng_state(),
            "numpy": self.rng.bit_generator.state,
        }

    def resume(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch"])
        self.rng.bit_generator.state = state["numpy"]


class IdTower:
    """As a source: the chance of every item by the softmax over all of them."""

    def __init__(self, towers: FittedTowers, scale: float) -> None:
        self._served, self._scale = towers.served, scale
        self._vectors = torch.from_numpy(towers.item_vectors)

    def scores(self, prefixes: Sequence[Rows]) -> Floats:
        items = torch.from_numpy(histories(prefixes))
        context = torch.zeros(len(items), 3, dtype=torch.int64)
        with torch.no_grad():
            users = self._served(items, torch.zeros(items.shape), (items > 0).long(), context)
            found: Floats = torch.softmax(self._scale * users @ self._vectors.T, dim=1).numpy()
        return found


def histories(prefixes: Sequence[Rows]) -> Rows:
    """int64 (n, HISTORY), left padded with 0, else row + 1: of each prefix the 20 newest distinct items,
    where they stand last, as a shopper's history is kept.
    """
    items = np.zeros((len(prefixes), HISTORY), np.int64)
    for row, prefix in enumerate(prefixes):
        newest = list(dict.fromkeys(prefix[::-1].tolist()))[:HISTORY][::-1]
        items[row, HISTORY - len(newest) :] = np.array(newest, np.int64) + 1
    return items


def trained(
    visits: Visits, cut: int, params: TwoTowerParams, refit: int, keep: Path | None
) -> Iterator[tuple[str, float, FittedTowers]]:
    """After each epoch its name, its loss and the towers: `params.epochs` by the visits before `cut`, then
    `refit` by all of them, at rates that fall as a cosine.

    `keep`: a folder where the state after each epoch goes, and from which a run that was stopped goes on.
    """
    with deterministic(params.seed, params.threads):
        trainer = IdTrainer(visits, params)
        plan = [
            ("learned", FINAL_RATE, 1.0, params.epochs, cut),
            ("refitted", FINAL_RATE, REFIT_RATE, refit, 0),
        ]
        for name, low, high, epochs, before in plan:
            trainer.learn_from(0, (before or len(visits)) * DAY_US)
            for epoch in range(epochs):
                file = keep / f"{name}_{epoch + 1}.pt" if keep else None
                if file and file.exists():
                    state = torch.load(file, weights_only=False)
                    loss = state["loss"]
                    trainer.resume(state)
                else:
                    loss = trainer.epoch(low + (high - low) * 0.5 * (1 + np.cos(np.pi * epoch / epochs)))
                    if file:
                        torch.save({**trainer.state(), "loss": loss}, file)
                yield f"{name} {epoch + 1}", loss, trainer.fitted([])
