"""Sections of params.yaml that training reads; params.yaml says what each key is for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextParams:
    """`text:`, the sentence encoder of the item tower."""

    batch: int
    max_tokens: int


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
    scale: float
    epochs: int
    patience: int
    valid_days: int
    batch_tokens: int
    learning_rate: float
    weight_decay: float
    forget_rate: float
    full_softmax_below: int
    sampled_negatives: int


@dataclass(frozen=True)
class AlsParams:
    """`als:`, implicit-feedback matrix factorisation."""

    seed: int
    factors: int
    regularization: float
    alpha: float
    iterations: int


@dataclass(frozen=True)
class CovisitParams:
    """`item_item.covisit:`, directional co-visits."""

    window: int
    distance_decay: float
    backward: float
    kind_weights: tuple[float, ...]
    popularity: float


@dataclass(frozen=True)
class EaseParams:
    """`item_item.ease:`, closed-form linear item-item model."""

    regularization: float
    min_sessions: int


@dataclass(frozen=True)
class ItemItemParams:
    """`item_item:`, the two sparse item-item tables."""

    neighbours: int
    covisit: CovisitParams
    ease: EaseParams
