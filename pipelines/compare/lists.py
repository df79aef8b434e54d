"""Which lists differ between two evaluations, and the queries where it mattered most. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Overlap:
    """`same`: share of the queries with the same items in the same order; `common`: mean items in both."""

    same: float
    common: float


@dataclass(frozen=True)
class Example:
    """One query whose list changed; items by title, in the order of their list."""

    after: str  # the newest contact before the question
    a: float  # NDCG@12
    b: float
    only_a: list[str]
    only_b: list[str]
    wanted: list[str]  # of these, those that were wanted


def overlap(both: pd.DataFrame) -> Overlap:
    """Over the rows of differences.paired."""
    pairs = [(list(x), list(y)) for x, y in zip(both["listed_a"], both["listed_b"], strict=True)]
    same = np.mean([x == y for x, y in pairs])
    return Overlap(float(same), float(np.mean([len({*x} & {*y}) for x, y in pairs])))


def examples(both: pd.DataFrame, titles: Mapping[str, str], count: int) -> list[Example]:
    """The `count` queries that b answers better than a by most, then as many that it answers worse."""
    by = (both["ndcg_at_12_b"] - both["ndcg_at_12_a"]).sort_values(kind="stable")
    best, worst = by[by > 0].index[::-1][:count], by[by < 0].index[:count]
    return [_example(both.loc[row], titles) for row in (*best, *worst)]


def _example(row: pd.Series, titles: Mapping[str, str]) -> Example:
    a, b, wanted = list(row["listed_a"]), list(row["listed_b"]), set(row["wanted_b"])
    only_a, only_b = [item for item in a if item not in b], [item for item in b if item not in a]

    def named(items: list[str]) -> list[str]:
        return [titles.get(item) or item for item in items]

    moved = [item for item in (*only_a, *only_b) if item in wanted]
    ndcg = float(row["ndcg_at_12_a"]), float(row["ndcg_at_12_b"])
    return Example(named([row["after_b"]])[0], *ndcg, named(only_a), named(only_b), named(moved))
