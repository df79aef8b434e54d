"""Causal attention over a history: what a position may see, and how far away in items and time that is.

Order and time are known only as differences (a learned bias for each distance and each age gap, Press et al.
2022, arXiv:2108.12409, with learned values), so that what holds for a position in the middle of a history
holds for the newest one in serving.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.events import HISTORY

# Seconds: a minute, 5, half an hour (a session's pause), 6 hours, a day, a week, a month. Comparing with
# edges instead of taking a logarithm gives the same code on every runtime.
AGE_EDGES = (60.0, 300.0, 1800.0, 21_600.0, 86_400.0, 604_800.0, 2_592_000.0)


def age_codes(seconds: Tensor) -> Tensor:
    """int64 of the same shape: how many of AGE_EDGES the age has reached, 0..7."""
    return torch.stack([seconds >= edge for edge in AGE_EDGES]).sum(0)


def visible(items: Tensor) -> tuple[Tensor, Tensor]:
    """Which keys each position may see, and how many distinct items lie between: bool, int64 (b, t, t).

    A position sees itself and each earlier item once, where it stands last: the folds keep distinct items and
    move a repeated one to the end, so a history in training looks as it would have looked in serving.

    >>> visible(torch.tensor([[0, 5, 7, 5]]))[0][0].int().tolist()
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    """
    t = items.shape[1]
    position = torch.arange(t, device=items.device)
    causal = position[None, :] <= position[:, None]  # (query, key)
    same = items[:, :, None] == items[:, None, :]
    again = torch.where(same & ~causal, position, t).amin(-1)  # (b, key) next place of its item
    superseded = again[:, None, :] <= position[None, :, None]  # the key's item stands again by then
    itself = position[:, None] == position[None, :]  # not torch.eye: ONNX Runtime has no boolean EyeLike
    allowed = causal & (items > 0)[:, None, :] & ~superseded | itself
    steps = torch.flip(torch.cumsum(torch.flip(allowed.long(), (2,)), 2), (2,))  # keys from here to the query
    return allowed, (steps - 1).clamp(0, HISTORY - 1)


class Attention(nn.Module):
    """Causal multi-head attention whose logits carry a bias by distance and by age gap."""

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.by_distance = nn.Embedding(HISTORY, heads)
        self.by_gap = nn.Embedding(len(AGE_EDGES) + 1, heads)
        self.dropout = dropout
        nn.init.zeros_(self.by_distance.weight)
        nn.init.zeros_(self.by_gap.weight)

    def forward(self, x: Tensor, distance: Tensor, gap: Tensor, allowed: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).transpose(1, 3).unbind(2)
        bias = (self.by_distance(distance) + self.by_gap(gap)).permute(0, 3, 1, 2)  # (b, heads, t, t)
        bias = bias.masked_fill(~allowed[:, None], -1e4)  # finite: an all-padding row must not become nan
        weights = torch.softmax(q @ k.transpose(2, 3) * (d // self.heads) ** -0.5 + bias, dim=-1)
        weights = F.dropout(weights, self.dropout, self.training)
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, d: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.attention = Attention(d, heads, dropout)
        self.feed = nn.Sequential(
            nn.LayerNorm(d), nn.Linear(d, 2 * d), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * d, d)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, distance: Tensor, gap: Tensor, allowed: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm(x), distance, gap, allowed))
        return x + self.dropout(self.feed(x))


class SessionSum(nn.Module):
    """The head of CORE (Hou et al. 2022, arXiv:2204.11067): attention weighs, item vectors are summed.

    A shopper stands among the items by construction: nothing has to be learned to map one on the other.
    """

    def __init__(self, d: int, item_dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.query, self.key = nn.Linear(d, d), nn.Linear(d, d)
        self.by_distance = nn.Embedding(HISTORY, 1)
        self.by_gap = nn.Embedding(len(AGE_EDGES) + 1, 1)
        self.dropout = nn.Dropout(item_dropout)
        nn.init.zeros_(self.by_distance.weight)
        nn.init.zeros_(self.by_gap.weight)

    def forward(
        self, asked: Tensor, x: Tensor, items: Tensor, distance: Tensor, gap: Tensor, allowed: Tensor
    ) -> Tensor:
        """float32 (b, t, d): for each position, the mean of `items` (b, t, d) with weights that sum to 1.

        asked, x   float32 (b, t, d)  the position with and without what is known of its query
        distance, gap int64, allowed bool (b, t, t) as `visible` and `age_codes` give them
        """
        bias = (self.by_distance(distance) + self.by_gap(gap)).squeeze(-1).masked_fill(~allowed, -1e4)
        logits = self.query(self.norm(asked)) @ self.key(self.norm(x)).transpose(1, 2)  # (b, query, key)
        return torch.softmax(logits * x.shape[-1] ** -0.5 + bias, dim=-1) @ self.dropout(items)
