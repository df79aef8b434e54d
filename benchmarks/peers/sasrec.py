"""SASRec: self-attentive sequential recommendation (Kang and McAuley, ICDM 2018).

As in the paper: learned positions, pre-norm blocks of causal self-attention and a point-wise feed-forward
net, dropout, item vectors shared by input and output, Adam with beta2 .98. `loss` is the paper's binary cross
entropy with one sampled negative a position, or the softmax over all items, with which it is stronger
(Klenitskiy and Vasilev, RecSys 2023); validation chooses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .contract import Peer, Rows, Scores, Settings, Visits, combinations

LENGTH, BATCH, LEARNING_RATE = 20, 128, 1e-3


class Net(nn.Module):
    """(batch, time) ids, 0 = nothing, to (batch, time, d)."""

    def __init__(self, items: int, d: int, blocks: int, dropout: float) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, d, padding_idx=0)
        self.places = nn.Embedding(LENGTH, d)
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)
        with torch.no_grad():
            self.items.weight[0] = 0.0
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(2 * blocks))
        self.attend = nn.ModuleList(
            nn.MultiheadAttention(d, 1, dropout=dropout, batch_first=True) for _ in range(blocks)
        )
        self.forth = nn.ModuleList(nn.Linear(d, d) for _ in range(2 * blocks))
        self.last, self.drop = nn.LayerNorm(d), nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        time = ids.shape[1]
        # Histories end at the last place, and padding before them is nobody's key but its own.
        x = self.items(ids) * self.items.embedding_dim**0.5 + self.places.weight[-time:]
        there = (ids > 0).unsqueeze(-1)
        x = self.drop(x) * there
        later = torch.triu(torch.ones(time, time, dtype=torch.bool), 1)
        barred = later | (ids == 0)[:, None, :]  # (batch, time, time)
        barred = barred & ~torch.eye(time, dtype=torch.bool)
        for block, attend in enumerate(self.attend):
            q = self.norms[2 * block](x)
            x = q + attend(q, x, x, attn_mask=barred, need_weights=False)[0]
            y = self.norms[2 * block + 1](x)
            inner = self.drop(functional.relu(self.forth[2 * block](y)))
            x = (y + self.drop(self.forth[2 * block + 1](inner))) * there
        return self.last(x)


class Sasrec(Peer):
    """One item after the other, the next one is the target at every place."""

    fits: ClassVar = {"loss": ("softmax", "bce"), "dropout": (0.2,)}
    epochs: ClassVar = (3, 6, 12, 20)  # looked at on validation while it trains
    random = True
    d: ClassVar = 64
    blocks: ClassVar = 2

    def fit(self, visits: Visits, seed: int, **settings: Any) -> None:
        self._begin(visits, seed, settings["loss"], settings["dropout"])
        for _ in range(settings["epochs"]):
            self._epoch()
        self._net.eval()

    def trained(self, visits: Visits, seed: int) -> Iterator[Settings]:
        """Epochs are looked at on the way: more of them go on from fewer, at a constant learning rate."""
        for settings in combinations(self.fits):
            self._begin(visits, seed, **settings)
            for epoch in range(1, max(self.epochs) + 1):
                self._epoch()
                if epoch in self.epochs:
                    self._net.eval()
                    yield settings | {"epochs": epoch}

    def scores(self, rows: Rows, **_: Any) -> Scores:
        ids = torch.from_numpy(rows[-LENGTH:].astype(np.int64) + 1)[None]
        with torch.inference_mode():
            user = self._net(ids)[0, -1]
            found: Scores = (self._net.items.weight[1:] @ user).numpy().astype(np.float64)
        found[self._cold] = -np.inf
        return found

    def _begin(self, visits: Visits, seed: int, loss: str, dropout: float) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self._rng, self._loss = np.random.default_rng(seed), loss
        self._cold = visits.counts() == 0
        self._net = Net(visits.n, self.d, self.blocks, dropout)
        self._steps = torch.optim.Adam(self._net.parameters(), LEARNING_RATE, betas=(0.9, 0.98))
        long = [visit[-LENGTH - 1 :] + 1 for v in range(len(visits)) if len(visit := visits[v]) > 1]
        long.sort(key=len)  # batches of like lengths carry little padding
        self._batches = []
        for at in range(0, len(long), BATCH):
            part = long[at : at + BATCH]
            ids = np.zeros((len(part), len(part[-1])), np.int64)
            for row, visit in enumerate(part):
                ids[row, -len(visit) :] = visit
            self._batches.append(torch.from_numpy(ids))

    def _epoch(self) -> None:
        self._net.train()
        for number in self._rng.permutation(len(self._batches)):
            ids = self._batches[number]
            out, wanted = self._net(ids[:, :-1]), ids[:, 1:]
            real = (ids[:, :-1] > 0) & (wanted > 0)
            users, targets = out[real], wanted[real]
            table = self._net.items.weight
            if self._loss == "softmax":
                loss = functional.cross_entropy(users @ table[1:].T, targets - 1)
            else:
                other = torch.from_numpy(self._rng.integers(1, len(table), len(targets)))
                up, down = (users * table[targets]).sum(-1), (users * table[other]).sum(-1)
                loss = -(functional.logsigmoid(up) + functional.logsigmoid(-down)).mean()
            self._steps.zero_grad()
            loss.backward()
            self._steps.step()
