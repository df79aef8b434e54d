"""Fitting the two towers: epochs, validation on the last days before the cut, early stopping."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.dataset import Contacts
from training.params import TwoTowerParams
from training.retrieval.item_features import ItemFeatures
from training.retrieval.negatives import PopularityNegatives, full_softmax_loss, sampled_softmax_loss
from training.retrieval.towers import ItemTower, ServedTower, UserTower
from training.retrieval.windows import Batch, Runs, batches, merge_repeats

DAY_US = 86_400_000_000
SLOTS, CANDIDATES = 12, 120


@dataclass(frozen=True)
class Epoch:
    """One row of curves.csv; ndcg and recall are of the next new item of held-out visits, over all items."""

    epoch: int
    loss: float
    ndcg_at_12: float
    recall_at_120: float


@dataclass(frozen=True)
class FittedTowers:
    """served: user tower with its item table; item_vectors float32 (items, d), L2-normalised."""

    served: ServedTower
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
        runs = merge_repeats(contacts)
        valid_from = cut_us - params.valid_days * DAY_US
        trainer = _Trainer(runs, features, params)
        curves: list[Epoch] = []
        best: tuple[float, dict[str, Tensor], dict[str, Tensor]] | None = None
        for number in range(1, params.epochs + 1):
            loss = trainer.train_epoch(number, before=valid_from)
            ndcg, recall = trainer.evaluate(valid_from)
            curves.append(Epoch(number, loss, ndcg, recall))
            on_epoch(curves[-1])
            if best is None or ndcg > best[0]:
                best = ndcg, copy.deepcopy(trainer.items.state_dict()), copy.deepcopy(trainer.user.state_dict())
            elif number - max(curves, key=lambda e: e.ndcg_at_12).epoch >= params.patience:
                break
        assert best is not None
        trainer.items.load_state_dict(best[1])
        trainer.user.load_state_dict(best[2])
        trainer.train_epoch(len(curves) + 1, since=valid_from)
        return trainer.finish(curves)


@contextmanager
def deterministic(seed: int, threads: int) -> Iterator[None]:
    """Fixed seed, thread count and kernels inside; the former settings again afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.set_rng_state(before[2])


class _Trainer:
    def __init__(self, runs: Runs, features: ItemFeatures, params: TwoTowerParams) -> None:
        self.runs, self.params = runs, params
        self.rng = np.random.default_rng(params.seed)
        self.items, self.user = ItemTower(features, params), UserTower(params)
        counts = np.bincount(runs.item, minlength=len(features))
        self.seen = torch.from_numpy((counts > 0).astype(np.float32))
        self.warm = torch.from_numpy(np.flatnonzero(counts))
        self.column = torch.from_numpy(np.cumsum(counts > 0) - 1)  # catalogue row -> place in warm
        self.negatives = (
            PopularityNegatives(counts, params.sampled_negatives, self.rng)
            if len(features) > params.full_softmax_below
            else None
        )
        self.optimizer = torch.optim.AdamW(
            [*self.items.parameters(), *self.user.parameters()],
            lr=params.learning_rate,
            weight_decay=params.weight_decay,
        )

    def _rate(self, epoch: int) -> float:
        done = min(epoch - 1, self.params.epochs) / self.params.epochs
        return self.params.learning_rate * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * done)))

    def train_epoch(self, epoch: int, *, since: int = 0, before: int = np.iinfo(np.int64).max) -> float:
        """Mean loss over the positions whose query was asked in [since, before)."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(epoch)
        self.items.train()
        self.user.train()
        total, count = 0.0, 0
        for batch in self._batches(self.params.forget_rate, self.params.target_shift):
            chosen = (batch.target >= 0) & (batch.asked >= since) & (batch.asked < before)
            if not chosen.any():
                continue
            loss = self._loss(batch, chosen)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.item() * chosen.sum()
            count += chosen.sum()
        return total / max(count, 1)

    def _batches(self, forget_rate: float, target_shift: float) -> Iterator[Batch]:
        return batches(
            self.runs,
            self.rng,
            tokens=self.params.batch_tokens,
            forget_rate=forget_rate,
            target_shift=target_shift,
        )

    def _loss(self, batch: Batch, chosen: np.ndarray) -> Tensor:
        table = self.items(self.seen)
        queries = self._queries(table, batch)[torch.from_numpy(chosen)]
        vectors = torch.nn.functional.normalize(table, dim=-1)
        targets = torch.from_numpy(batch.target[chosen])
        if self.negatives is None:
            return full_softmax_loss(queries, vectors[self.warm], self.column[targets], self.params.scale)
        rows, log_q = self.negatives.draw()
        drawn = torch.from_numpy(rows)
        hits = drawn[None, :] == targets[:, None]
        return sampled_softmax_loss(
            queries, vectors[targets], vectors[drawn], torch.from_numpy(log_q), hits, self.params.scale
        )

    def _queries(self, table: Tensor, batch: Batch) -> Tensor:
        padded = torch.cat([torch.zeros_like(table[:1]), table])
        arrays = (batch.items, batch.ages, batch.kinds, batch.wait, batch.context)
        return self.user(padded, *(torch.from_numpy(a) for a in arrays))

    @torch.no_grad()
    def evaluate(self, since: int) -> tuple[float, float]:
        """NDCG@12 and Recall@120 of the next new item for queries asked at or after `since`."""
        self.items.eval()
        self.user.eval()
        table = self.items(self.seen)
        vectors = torch.nn.functional.normalize(table, dim=-1)
        ranks: list[np.ndarray] = []
        rng, self.rng = self.rng, np.random.default_rng(self.params.seed)
        for batch in self._batches(0.0, 0.0):
            chosen = (batch.target >= 0) & (batch.asked >= since) & (batch.items > 0)
            if not chosen.any():
                continue
            rows = np.nonzero(chosen)[0]
            scores = (self._queries(table, batch)[torch.from_numpy(chosen)] @ vectors.T).numpy()
            held = np.concatenate([np.zeros((len(rows), 1)), scores], axis=1)  # column 0 takes the padding
            target = held[np.arange(len(rows)), batch.target[chosen] + 1]
            visible = np.where(
                np.arange(batch.items.shape[1]) <= np.nonzero(chosen)[1][:, None], batch.items[rows], 0
            )
            np.put_along_axis(held, visible, -np.inf, axis=1)
            held[:, 0] = -np.inf
            ranks.append((held > target[:, None]).sum(1))
        self.rng = rng
        rank = np.concatenate(ranks) if ranks else np.empty(0)
        if not len(rank):
            return 0.0, 0.0
        ndcg = np.where(rank < SLOTS, 1 / np.log2(rank + 2), 0.0)
        return float(ndcg.mean()), float((rank < CANDIDATES).mean())

    @torch.no_grad()
    def finish(self, curves: list[Epoch]) -> FittedTowers:
        self.items.eval()
        self.user.eval()
        table = self.items(self.seen)
        vectors = torch.nn.functional.normalize(table, dim=-1).numpy()
        served = ServedTower(self.user, torch.cat([torch.zeros_like(table[:1]), table])).eval()
        return FittedTowers(served, np.ascontiguousarray(vectors), curves)
