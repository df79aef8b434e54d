"""A small tower's settings, the catalogue that it reads, and what it is asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from feature_repo.events import HISTORY
from training.two_tower.attention import AGE_EDGES
from training.two_tower.item_features import LEVELS, ItemFeatures
from training.two_tower.towers import TwoTowerParams

PARAMS = TwoTowerParams(
    seed=5,
    threads=1,
    dim=16,
    layers=2,
    heads=2,
    dropout=0.0,
    id_dropout=0.1,
    id_spread=0.05,
    item_dropout=0.0,
    scale=14.0,
    epochs=6,
    most_epochs=6,
    positions=0,
    patience=6,
    valid_days=1,
    batch_tokens=128,
    learning_rate=0.005,
    weight_decay=0.01,
    forget_rate=0.5,
    revisits=False,
    full_softmax_below=1000,
    sampled_negatives=64,
)


def features_of(items: int, width: int = 8) -> ItemFeatures:
    """Random text; no category, brand, price or margin is known."""
    rng = np.random.default_rng(0)
    none = np.zeros(items, np.int64)
    text = rng.normal(size=(items, width)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    categories = np.zeros((items, LEVELS), np.int64)
    return ItemFeatures(text, np.zeros_like(text), categories, none, none, none)


def served_inputs(histories: Sequence[Sequence[int]]) -> tuple[torch.Tensor, ...]:
    """Right-aligned views, 10 s apart, asked at once, on the context that `contacts_of` gives."""
    items = np.zeros((len(histories), HISTORY), np.int64)
    ages = np.zeros((len(histories), HISTORY), np.float32)
    for row, history in enumerate(histories):
        recent = list(history)[-HISTORY:]
        if recent:
            items[row, -len(recent) :] = np.array(recent) + 1
            ages[row, -len(recent) :] = 10.0 * np.arange(len(recent))[::-1]
    arrays = items, ages, (items > 0).astype(np.int64), np.ones((len(histories), 3), np.int64)
    return tuple(torch.from_numpy(array) for array in arrays)


def random_inputs(rng: np.random.Generator, b: int, items: int) -> tuple[torch.Tensor, ...]:
    """Histories of every length, 0 included, with repeats and with ages just on the edges of their codes."""
    length = rng.integers(0, HISTORY + 1, b)
    real = np.arange(HISTORY) >= HISTORY - length[:, None]
    steps = rng.choice([0.0, 1.0, 59.0, 60.0, 240.0, 1500.0, *AGE_EDGES], (b, HISTORY))
    ages = np.cumsum(steps[:, ::-1], axis=1)[:, ::-1] * real
    rows = rng.integers(1, items + 1, (b, HISTORY)) * real
    kinds = rng.integers(1, 4, (b, HISTORY)) * real
    context = np.stack([rng.integers(0, 4, b), rng.integers(0, 11, b), rng.integers(0, 33, b)], axis=1)
    return tuple(torch.from_numpy(a) for a in (rows, ages.astype(np.float32), kinds, context))
