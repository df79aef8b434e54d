"""The two towers. Both end in the same space of L2-normalised vectors; the score is their inner product.

The user tower reads contacts newest last and is causal: its output at position t is the shopper as known just
after contact t, so one pass trains on every position.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feature_repo.events import CHANNELS, DEVICES, KINDS
from feature_repo.features.context import COUNTRY_BUCKETS
from training.two_tower.attention import AGE_EDGES, Block, SessionSum, age_codes, visible
from training.two_tower.item_features import BANDS, INPUTS, ItemFeatures
from training.two_tower.windows import Batch


@dataclass(frozen=True)
class TwoTowerParams:
    """`two_tower:`, both towers and how they are fitted."""

    seed: int
    threads: int
    dim: int
    layers: int
    heads: int
    dropout: float
    id_dropout: float
    id_spread: float
    item_dropout: float
    scale: float
    epochs: int
    most_epochs: int
    positions: int
    patience: int
    valid_days: int
    batch_tokens: int
    learning_rate: float
    weight_decay: float
    forget_rate: float
    revisits: bool
    full_softmax_below: int
    sampled_negatives: int


def zero(layer: nn.Module) -> None:
    """A linear layer that begins by adding nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class ItemTower(nn.Module):
    """Content of an item, plus an identity vector for items that training has seen.

    The identity is dropped at random per item and step, so the content part learns to stand alone: that is
    what a cold item has.
    """

    text: Tensor
    accessories: Tensor
    categories: Tensor
    brand: Tensor
    price: Tensor
    margin: Tensor
    seen: Tensor  # bool (items,): training has met the item

    def __init__(self, features: ItemFeatures, params: TwoTowerParams) -> None:
        super().__init__()
        d = params.dim
        for name in INPUTS:
            self.register_buffer(name, torch.from_numpy(getattr(features, name)), persistent=False)
        self.register_buffer("seen", torch.zeros(len(features), dtype=torch.bool))
        self.of_text = nn.Linear(features.text.shape[1], d, bias=False)
        self.of_accessories = nn.Linear(features.text.shape[1], d, bias=False)
        self.of_category = nn.Embedding(int(self.categories.max()) + 1, d, padding_idx=0)
        self.of_brand = nn.Embedding(int(self.brand.max()) + 1, d, padding_idx=0)
        self.of_price = nn.Embedding(BANDS + 1, d, padding_idx=0)
        self.of_margin = nn.Embedding(BANDS + 1, d, padding_idx=0)
        self.identity = nn.Embedding(len(features), d)
        self.mix = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))
        for table in (self.of_category, self.of_brand, self.of_price, self.of_margin):
            nn.init.normal_(table.weight, std=0.05)
            nn.init.zeros_(table.weight[0])  # what is unknown tells nothing
        nn.init.normal_(self.identity.weight, std=params.id_spread)
        self.id_dropout = params.id_dropout

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """float32 (n, d), not normalised: the items of `rows` int64 (n,), all by default."""
        of = slice(None) if rows is None else rows
        content = self.content(*(getattr(self, name)[of] for name in INPUTS))
        keep = self.seen[of]
        if self.training:
            keep = keep & (torch.rand(len(keep), device=keep.device) >= self.id_dropout)
        identity = self.identity.weight if rows is None else self.identity(rows)
        return content + keep[:, None] * identity

    def content(self, *inputs: Tensor) -> Tensor:
        """float32 (n, d), not normalised: what is known of n items without their identity, by INPUTS."""
        text, accessories, categories, brand, price, margin = inputs
        content = self.of_text(text) + self.of_accessories(accessories)
        content = content + self.of_category(categories).sum(1) + self.of_brand(brand)
        content = content + self.of_price(price) + self.of_margin(margin)
        return content + self.mix(content)


class UserTower(nn.Module):
    """Shopper as known at each position of a history: the place of its items, and a step from there.

    The step is what kinds, times and context tell, and the only part that a shopper without contacts has.
    """

    def __init__(self, params: TwoTowerParams) -> None:
        super().__init__()
        d = params.dim
        self.nothing = nn.Parameter(torch.randn(d) * 0.05)  # token of the padding: a shopper without contacts
        self.of_kind = nn.Embedding(len(KINDS) + 1, d)
        self.of_wait = nn.Embedding(len(AGE_EDGES) + 1, d)
        self.of_device = nn.Embedding(len(DEVICES) + 1, d)
        self.of_channel = nn.Embedding(len(CHANNELS) + 1, d)
        self.of_country = nn.Embedding(COUNTRY_BUCKETS + 1, d)
        self.blocks = nn.ModuleList(Block(d, params.heads, params.dropout) for _ in range(params.layers))
        self.dropout = nn.Dropout(params.dropout)
        self.sum = SessionSum(d, params.item_dropout)
        self.step = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, d))
        zero(self.step[-1])  # at first a shopper is where the items are
        for table in (self.of_kind, self.of_wait, self.of_device, self.of_channel, self.of_country):
            nn.init.normal_(table.weight, std=0.05)

    def forward(
        self, table: Tensor, items: Tensor, ages: Tensor, kinds: Tensor, wait: Tensor, context: Tensor
    ) -> Tensor:
        """L2-normalised (b, t, d).

        table    float32 (N + 1, d)  item tower's output, row 0 is not read
        items    int64 (b, t)        0 padding, else row + 1; left padded
        ages     float32 (b, t)      seconds before any one instant; only differences count
        kinds    int64 (b, t)
        wait     float32 (b, t)      seconds from the contact to the query that this position answers
        context  int64 (b, t, 3)     of that query
        """
        return self.read(F.embedding(items, table), items, ages, kinds, wait, context)

    def read(
        self, vectors: Tensor, items: Tensor, ages: Tensor, kinds: Tensor, wait: Tensor, context: Tensor
    ) -> Tensor:
        """As `forward`, of the items' `vectors` (b, t, d); `items` tell only which are the same."""
        real = items > 0
        raw = torch.where(real[..., None], vectors, self.nothing)  # (b, t, d)
        x = raw + self.of_kind(kinds) * real[..., None]
        allowed, distance = visible(items)
        gap = age_codes(ages[:, None, :] - ages[:, :, None])  # (b, query, key)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, distance, gap, allowed)
        asked = x + self.of_wait(age_codes(wait) * real)
        asked = asked + self.of_device(context[..., 0]) + self.of_channel(context[..., 1])
        asked = asked + self.of_country(context[..., 2])
        return F.normalize(self.sum(asked, x, raw, distance, gap, allowed) + self.step(asked), dim=-1)


class TwoTowers(nn.Module):
    """Both towers, trained as one model."""

    def __init__(self, features: ItemFeatures, params: TwoTowerParams) -> None:
        super().__init__()
        self.items = ItemTower(features, params)
        self.user = UserTower(params)

    def queries(self, table: Tensor, batch: Batch, chosen: np.ndarray) -> Tensor:
        """User vectors float32 (n, d) of the n positions that `chosen` bool (b, t) marks."""
        arrays = (batch.items, batch.ages, batch.kinds, batch.wait, batch.context)
        on = table.device
        vectors: Tensor = self.user(with_padding(table), *(torch.from_numpy(a).to(on) for a in arrays))
        return vectors[torch.from_numpy(chosen).to(on)]


def with_padding(table: Tensor) -> Tensor:
    """(items + 1, d): the item table behind a row 0 for the padding."""
    return torch.cat([torch.zeros_like(table[:1]), table])


class ServedTower(nn.Module):
    """The user tower with its item table, as exported: one vector per shopper, for a query at age 0."""

    table: Tensor

    def __init__(self, tower: UserTower, table: Tensor) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("table", table)

    def forward(
        self, items: Tensor, ages: Tensor, kinds: Tensor, context: Tensor, newborn: Tensor | None = None
    ) -> Tensor:
        """float32 (b, d), L2-normalised.

        items, kinds int64 (b, t) and ages float32 (b, t) as in UserTower, ages counted back from the query;
        context int64 (b, 3). A history of nothing but padding gives what the context alone tells. An item
        beyond the table stands at its place of `newborn` float32 (b, t, d), as the item tower gives it.
        """
        known = self.table.shape[0]
        vectors = F.embedding(items.clamp(max=known - 1), self.table)  # (b, t, d)
        if newborn is not None:
            vectors = torch.where((items < known)[..., None], vectors, newborn)
        wait = ages[:, -1:].expand_as(ages)
        everywhere = context[:, None, :].expand(-1, items.shape[1], -1)
        return self.tower.read(vectors, items, ages, kinds, wait, everywhere)[:, -1]
