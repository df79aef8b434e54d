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
    """NDCG@12 and recall@120 of the target over the whole catalogue, less what is barred.

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
            ranks.append(_ranks(scores.float().cpu().numpy(), batch, chosen))
    rank = np.concatenate(ranks)
    if not len(rank):
        return 0.0, 0.0
    gain = np.where(rank < SLOTS, 1 / np.log2(rank + 2), 0.0)
    return float(gain.mean()), float((rank < CANDIDATES).mean())


def _ranks(scores: np.ndarray, batch: Batch, chosen: np.ndarray) -> np.ndarray:
    """int64 (n,): items with a better score than the target's, 0 being the best; scores (n, items)."""
    target = scores[np.arange(len(scores)), batch.target[chosen]]
    scores[batch.barred(chosen)] = -np.inf
    ranks: np.ndarray = (scores > target[:, None]).sum(axis=1)
    return ranks
