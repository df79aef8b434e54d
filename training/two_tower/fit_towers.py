"""Fitting the two towers: epochs, validation on the last days before the cut, early stopping."""

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from feature_repo.clock import DAY_US
from training.dataset import Contacts
from training.two_tower.item_features import ItemFeatures
from training.two_tower.negatives import (
    PopularityNegatives,
    full_softmax_loss,
    places_of,
    sampled_softmax_loss,
)
from training.two_tower.towers import ItemTower, ServedTower, TwoTowerParams, TwoTowers, with_padding
from training.two_tower.validation import next_item_quality
from training.two_tower.windows import Batch, Runs, batches, merge_repeats

EVER = (0, sys.maxsize)
MEMORY: Any = torch.utils.deterministic
FINAL_RATE = 0.05  # of the learning rate, where the cosine ends


@dataclass(frozen=True)
class Epoch:
    """One row of curves.csv; ndcg and recall are of the next new item on the held-out days."""

    epoch: int
    loss: float
    ndcg_at_12: float
    recall_at_120: float


@dataclass(frozen=True)
class FittedTowers:
    """served: user tower with its item table; item_vectors float32 (items, d), L2-normalised.

    items: the item tower, for items that come later.
    """

    served: ServedTower
    items: ItemTower
    item_vectors: np.ndarray
    curves: list[Epoch]


def fit_towers(
    contacts: Contacts,
    features: ItemFeatures,
    params: TwoTowerParams,
    cut_us: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> FittedTowers:
    """Train on `contacts`, all before `cut_us`, holding out the last `valid_days` to choose the epoch.

    The chosen epoch then sees the held-out days once: they are the newest and nearest to what will be served.
    Same input and params, same bytes.
    """
    with deterministic(params.seed, params.threads):
        trainer = Trainer(merge_repeats(contacts, params.revisits), features, params)
        held_out = cut_us - params.valid_days * DAY_US
        curves: list[Epoch] = []
        best, best_weights = 0, trainer.model.state_dict()
        trainer.learn_from(0, held_out)
        epochs = planned_epochs(params, len(contacts))
        while len(curves) < epochs and len(curves) - best < params.patience:
            loss = trainer.epoch(_cosine(len(curves) / epochs))
            curves.append(Epoch(len(curves) + 1, loss, *trainer.quality(held_out)))
            on_epoch(curves[-1])
            if curves[-1] is max(curves, key=lambda epoch: epoch.ndcg_at_12):
                best, best_weights = len(curves), copy.deepcopy(trainer.model.state_dict())
        trainer.model.load_state_dict(best_weights)
        trainer.learn_from(held_out, cut_us)
        trainer.epoch(FINAL_RATE)
        return trainer.fitted(curves)


def planned_epochs(params: TwoTowerParams, contacts: int) -> int:
    """Epochs at most: as many as `positions` allow, so that a small shop is not left with few steps.

    A count, not a clock, bounds the time: the same input gives the same bytes on any machine.
    """
    return max(params.epochs, min(params.most_epochs, params.positions // max(contacts, 1)))


@contextmanager
def deterministic(seed: int, threads: int) -> Iterator[None]:
    """Fixed seed, thread count and kernels inside; the former settings again afterwards.

    On a GPU, whose products may add up in another order, the same bytes are not promised.
    """
    threads_before, state = torch.get_num_threads(), torch.get_rng_state()
    strict, fills = torch.are_deterministic_algorithms_enabled(), MEMORY.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    MEMORY.fill_uninitialized_memory = False  # nothing here reads memory that it has not written
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(strict)
        MEMORY.fill_uninitialized_memory = fills
        torch.set_rng_state(state)


def _cosine(done: float) -> float:
    """Share of the learning rate after the share `done` of the epochs: from 1 down to FINAL_RATE."""
    return float(FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + np.cos(np.pi * done)))


class Trainer:
    """Both towers and their optimizer, an epoch at a time; `fit_towers` decides how many."""

    def __init__(self, runs: Runs, features: ItemFeatures, params: TwoTowerParams) -> None:
        self.runs, self.params = runs, params
        self.rng = np.random.default_rng(params.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = TwoTowers(features, params).to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay, fused=True
        )
        self.span = EVER
        self.counts = np.zeros(len(features), dtype=np.int64)

    def learn_from(self, since: int, before: int) -> None:
        """Epochs from here on answer the queries asked in [since, before), us."""
        self.span = since, before
        within = (self.runs.first_ts >= since) & (self.runs.first_ts < before)
        self.counts += np.bincount(self.runs.item[within], minlength=len(self.counts))
        warm = self.counts > 0
        self.model.items.seen.copy_(torch.from_numpy(warm))
        self.warm = self._on(np.flatnonzero(warm))
        self.column = np.cumsum(warm) - 1  # catalogue row -> place in self.warm
        self.negatives = PopularityNegatives(self.counts, self.params.sampled_negatives, self.rng)

    def epoch(self, rate: float) -> float:
        """One pass at this share of the learning rate; the mean loss over its positions."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.params.learning_rate * rate
        self.model.train()
        total, count = 0.0, 0
        for batch in self._batches(self.rng, self.params.forget_rate):
            since, before = self.span
            chosen = (batch.target >= 0) & (batch.asked >= since) & (batch.asked < before)
            if not chosen.any():
                continue
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                loss = self._loss(batch, chosen)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            positions = int(chosen.sum())
            total += loss.item() * positions
            count += positions
        return total / max(count, 1)

    def quality(self, since: int) -> tuple[float, float]:
        """NDCG@12 and recall@120 of the queries asked from `since` on; the same windows each time."""
        rng = np.random.default_rng(self.params.seed)
        return next_item_quality(self.model, self._batches(rng, forget_rate=0.0), since)

    def _batches(self, rng: np.random.Generator, forget_rate: float) -> Iterator[Batch]:
        p = self.params
        return batches(self.runs, rng, tokens=p.batch_tokens, forget_rate=forget_rate, revisits=p.revisits)

    def _on(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _loss(self, batch: Batch, chosen: np.ndarray) -> Tensor:
        if self.device.type == "cuda" or len(self.counts) < self.params.full_softmax_below:
            return self._full_loss(batch, chosen)
        return self._sampled_loss(batch, chosen)

    def _barred(self, batch: Batch, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As Batch.barred, of the rows that training has met."""
        position, row = batch.barred(chosen)
        met = self.counts[row] > 0
        return position[met], row[met]

    def _full_loss(self, batch: Batch, chosen: np.ndarray) -> Tensor:
        table = self.model.items()
        queries = self.model.queries(table, batch, chosen)
        targets = self._on(self.column[batch.target[chosen]])
        known = F.normalize(table[self.warm], dim=-1)
        position, row = self._barred(batch, chosen)
        barred = self._on(position), self._on(self.column[row])
        return full_softmax_loss(queries, known, targets, self.params.scale, barred)

    def _sampled_loss(self, batch: Batch, chosen: np.ndarray) -> Tensor:
        """The item tower runs on what the step meets only: histories, targets and negatives."""
        drawn, log_q = self.negatives.draw()
        targets, real = batch.target[chosen], batch.items > 0
        rows = np.unique(np.concatenate([batch.items[real] - 1, targets, drawn]))
        table = self.model.items(self._on(rows))
        places = np.where(real, np.searchsorted(rows, batch.items - 1) + 1, 0)
        queries = self.model.queries(table, dataclasses.replace(batch, items=places), chosen)
        vectors = F.normalize(table, dim=-1)
        positives, negatives = (vectors[self._on(np.searchsorted(rows, r))] for r in (targets, drawn))
        position, row = self._barred(batch, chosen)
        itself = np.arange(len(targets))
        found = places_of(np.append(itself, position), np.append(targets, row), drawn)
        barred = self._on(found[0]), self._on(found[1])
        return sampled_softmax_loss(queries, positives, negatives, self._on(log_q), barred, self.params.scale)

    @torch.no_grad()
    def fitted(self, curves: list[Epoch]) -> FittedTowers:
        self.model.to("cpu").eval()
        table = self.model.items()
        served = ServedTower(self.model.user, with_padding(table)).eval()
        vectors = F.normalize(table, dim=-1).numpy()
        return FittedTowers(served, self.model.items, vectors, curves)
