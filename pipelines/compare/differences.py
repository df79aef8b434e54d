"""What differs between two evaluations of the same queries, with paired bootstrap intervals. Pure.

Both sides answered each query, so the difference is taken within the query: what makes some queries harder
than others is the same on both sides and cancels. Whole sessions are drawn, as in the evaluation itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipelines.compare.sides import CompareError, Side
from pipelines.protocol.metrics import OURS, bootstrap_interval
from pipelines.protocol.results import MEASURES, SLICES

KEY = ["session_id", "now"]
WHOLE = ("coverage_at_12", "novelty", "gini")  # of all lists together: no query has one of its own


@dataclass(frozen=True)
class Difference:
    """One number on both sides. `low` and `high`: 95 % interval of b - a; None where no query has one."""

    name: str
    queries: int
    a: float
    b: float
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> str:
        """ "better" or "worse" where the interval leaves 0 out; else empty.

        >>> Difference("ndcg_at_12", 90, .2, .25, .01, .09).verdict
        'better'
        """
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return ""
        return "better" if self.low > 0 else "worse"


def paired(a: Side, b: Side) -> pd.DataFrame:
    """The queries that both answered, one row each; columns of a and b end in _a and _b.

    Raises CompareError where they are of two shops, or have no query in common.
    """
    if a.report["shop"] != b.report["shop"]:
        shops = f"{a.name} is of shop {a.report['shop']}, {b.name} of shop {b.report['shop']}"
        raise CompareError(f"compare: {shops}; allowed: two evaluations of one shop")
    both = a.results.merge(b.results, on=KEY, suffixes=("_a", "_b"))
    same = [set(x) == set(y) for x, y in zip(both["wanted_a"], both["wanted_b"], strict=True)]
    both = both[np.array(same, np.bool_)].reset_index(drop=True)
    if both.empty:
        problem = (
            f"none of the {len(a.results)} queries of {a.name} is among the {len(b.results)} of {b.name}"
        )
        step = "evaluate both on the same data, with the same test_from and section `queries`"
        raise CompareError(f"compare: {problem}; {step}")
    return both


def measured(both: pd.DataFrame, a: Side, b: Side, seed: int) -> list[Difference]:
    """The measures over the common queries, then what is of all lists of each side's own evaluation."""
    rng = np.random.default_rng(seed)
    found = [_difference(name, name, both, rng) for name in MEASURES]
    ours = a.report["models"][OURS], b.report["models"][OURS]
    return found + [Difference(name, len(both), ours[0][name], ours[1][name]) for name in WHOLE]


def sliced(both: pd.DataFrame, seed: int) -> list[Difference]:
    """NDCG@12 of each slice; a query is in it if it is on side b (a stored row may tell otherwise on a)."""
    rng = np.random.default_rng(seed)
    parts = ((name, both[both[f"{name}_b"]]) for name in SLICES)
    return [_difference("ndcg_at_12", name, part, rng) for name, part in parts if len(part)]


def _difference(measure: str, name: str, part: pd.DataFrame, rng: np.random.Generator) -> Difference:
    before, after = (part[f"{measure}_{of}"].to_numpy(np.float64) for of in "ab")
    interval = bootstrap_interval(after - before, rng, clusters=part["session_id"].to_numpy())
    return Difference(name, len(part), float(before.mean()), float(after.mean()), *interval)


def changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Params that differ, each with both values; None where a side has none.

    >>> changed({"ranker.seed": 7, "ranker.k": 12}, {"ranker.seed": 8, "ranker.k": 12})
    {'ranker.seed': (7, 8)}
    """
    names = sorted({*a, *b})
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}
