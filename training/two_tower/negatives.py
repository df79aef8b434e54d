"""The softmax over the catalogue: exact where it fits, sampled with the logQ correction where it does not."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def places_of(row: np.ndarray, item: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the pairs (row, item) of a batch stand in its table (rows, drawn): int64 rows and columns.

    An item may be drawn never or more than once.

    >>> [a.tolist() for a in places_of(np.array([0, 1]), np.array([7, 5]), np.array([7, 2, 7]))]
    [[0, 0], [0, 2]]
    """
    order = np.argsort(drawn, kind="stable")
    first, end = (np.searchsorted(drawn[order], item, side) for side in ("left", "right"))
    times = end - first
    within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    return np.repeat(row, times), order[np.repeat(first, times) + within]


class PopularityNegatives:
    """Draws catalogue rows with probability q ~ count ** 0.75 over the items that training has seen.

    Items never seen are neither positive nor negative: pushing them away would teach the content part of the
    item tower that what is new is bad.
    """

    def __init__(self, counts: np.ndarray, size: int, rng: np.random.Generator) -> None:
        """counts int64 (items,): contacts; `size` rows per draw, with replacement."""
        weights = counts.astype(np.float64) ** 0.75
        weights[counts == 0] = 0
        self.q = weights / weights.sum()
        self.size = size
        self.rng = rng

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows int64 (size,) and the log of the expected number of draws of each, float32 (size,)."""
        rows = self.rng.choice(len(self.q), size=self.size, p=self.q)
        return rows, np.log(self.size * self.q[rows]).astype(np.float32)


def full_softmax_loss(
    queries: Tensor,
    vectors: Tensor,
    targets: Tensor,
    scale: float,
    barred: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Mean cross entropy of float32 (n, d) queries against all (m, d) vectors; targets int64 (n,) < m.

    barred: places (row, column), int64, of what is no candidate of a query: it may score what it will.
    """
    logits = scale * queries @ vectors.T
    if barred is not None:
        logits = logits.index_put(barred, logits.new_tensor(-torch.inf))
    return F.cross_entropy(logits, targets)


def sampled_softmax_loss(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    log_q: Tensor,
    barred: tuple[Tensor, Tensor],
    scale: float,
) -> Tensor:
    """Mean cross entropy against one positive each and shared negatives, corrected by -log q.

    Without the correction frequent items are punished for being drawn often (Bengio & Senecal 2008; Yi et al.
    2019, "Sampling-bias-corrected neural modeling"). queries, positives float32 (n, d); negatives (m, d) with
    log_q (m,); barred are the places (row, column), int64, where a negative is the query's own positive or no
    candidate of the query.
    """
    positive = scale * (queries * positives).sum(-1)  # (n,)
    negative = torch.addmm(-log_q, scale * queries, negatives.T)  # (n, m), the bulk of a step
    negative[barred] = -torch.inf
    return (torch.logaddexp(positive, negative.logsumexp(1)) - positive).mean()
