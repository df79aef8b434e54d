"""How well the towers put the next new item of held-out visits in front."""

from collections.abc import Iterable

import numpy as np
import torch
from torch.nn import functional as F

from training.two_tower.towers import TwoTowers
from training.two_tower.windows import Batch

SLOTS, CANDIDATES = 12, 120


@torch.no_grad()
def next_item_quality(model: TwoTowers, batches: Iterable[Batch], since: int) -> tuple[float, float]:
    """NDCG@12 and recall@120 of the next new item over the whole catalogue, what was contacted left out.

    Counts the positions with a contact whose query was asked at or after `since` (us); 0, 0 without any.
    """
    model.eval()
    table = model.items()
    vectors = F.normalize(table, dim=-1)
    ranks = [np.empty(0, dtype=np.int64)]
    for batch in batches:
        chosen = (batch.target >= 0) & (batch.asked >= since) & (batch.items > 0)
        if chosen.any():
            scores = model.queries(table, batch, chosen) @ vectors.T
            ranks.append(_ranks(scores.numpy(), batch, chosen))
    rank = np.concatenate(ranks)
    if not len(rank):
        return 0.0, 0.0
    gain = np.where(rank < SLOTS, 1 / np.log2(rank + 2), 0.0)
    return float(gain.mean()), float((rank < CANDIDATES).mean())


def _ranks(scores: np.ndarray, batch: Batch, chosen: np.ndarray) -> np.ndarray:
    """int64 (n,): items with a better score than the target's, 0 being the best; scores (n, items)."""
    windows, positions = np.nonzero(chosen)
    target = scores[np.arange(len(scores)), batch.target[chosen]]
    padded = np.concatenate([np.full((len(scores), 1), -np.inf), scores], axis=1)  # column 0 is the padding
    contacted = np.where(np.arange(batch.items.shape[1]) <= positions[:, None], batch.items[windows], 0)
    np.put_along_axis(padded, contacted, -np.inf, axis=1)
    ranks: np.ndarray = (padded > target[:, None]).sum(axis=1)
    return ranks
