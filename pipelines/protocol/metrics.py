"""Ranking metrics of the gate: how good lists are, how much of the catalogue they show, how sure we are.

Gain is binary. A list is judged in its order, best first; `hits[q, j]` says whether place j of query q's list
holds a relevant item. Everything is float64 and deterministic; randomness is passed in.
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from feature_repo.errors import EndcapError

Item = TypeVar("Item", bound=Hashable)
Doubles = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Hits = npt.NDArray[np.bool_]
Lists = Sequence[Sequence[int]] | npt.NDArray[np.integer[Any]]  # catalogue rows, best first; -1 = empty place


OURS = "endcap"  # our whole path, among the models of a report


class MetricError(EndcapError):
    """Lists or counts that a metric is not defined for."""


def discounts(k: int) -> Doubles:
    """Weight of place 1..k, float64 (k,): 1 / log2(1 + place) (Järvelin and Kekäläinen, 2002).

    >>> discounts(3).round(4).tolist()
    [1.0, 0.6309, 0.5]
    """
    return 1.0 / np.log2(np.arange(2, k + 2))


def ndcg(ranked: Sequence[Item], relevant: AbstractSet[Item], k: int = 12) -> float:
    """NDCG@k of one list: DCG@k over the DCG of the best list possible, min(k, relevant) hits at the top.

    Hits at places 1 and 3, two items relevant: (1 + 0.5) / (1 + 0.6309).

    >>> round(ndcg(["a", "x", "b"], {"a", "b"}), 4)
    0.9197

    Raises MetricError when nothing is relevant or the first k places repeat an item.
    """
    top = list(ranked[:k])
    if len(set(top)) < len(top):
        raise MetricError(f"ranked: {top!r} repeats an item; allowed: distinct items")
    hits = np.zeros((1, k), np.bool_)
    hits[0, : len(top)] = [item in relevant for item in top]
    return float(ndcg_at(hits, np.array([len(relevant)]), k)[0])


def ndcg_at(hits: Hits, relevant_counts: Counts, k: int = 12) -> Doubles:
    """NDCG@k of every query, float64 (q,), from hits bool (q, >= 1 places) and relevant_counts int (q,).

    Lists shorter than k are lists whose last places are empty.

    >>> ndcg_at(np.array([[True, False, True], [False, True, False]]), np.array([2, 1]), 3).round(4).tolist()
    [0.9197, 0.6309]
    """
    shown = _checked(hits, relevant_counts, k)
    ideal = np.concatenate([[0.0], np.cumsum(discounts(k))])  # (k + 1,) DCG of 0..k hits at the top
    # A sum in one fixed order, so that an ideal list is exactly 1.
    dcg = np.cumsum(shown * discounts(k)[: shown.shape[1]], axis=1)[:, -1]
    return dcg / ideal[np.minimum(relevant_counts, k)]


def recall_at(hits: Hits, relevant_counts: Counts, k: int) -> Doubles:
    """Share of the relevant items that stand in the first k places, float64 (q,).

    >>> recall_at(np.array([[True, False, True, True]]), np.array([4]), 3).tolist()
    [0.5]
    """
    return _checked(hits, relevant_counts, k).sum(axis=1) / relevant_counts


def exposures(lists: Lists, n_items: int) -> Counts:
    """How often each catalogue row stands in a list, int64 (n_items,).

    >>> exposures([[0, 2], [2], []], 4).tolist()
    [1, 0, 2, 0]
    """
    rows, _ = _flat(lists)
    if len(rows) and rows.max() >= n_items:
        raise MetricError(f"lists: row {rows.max()} is out of the catalogue; allowed: 0..{n_items - 1}")
    return np.bincount(rows, minlength=n_items).astype(np.int64)


def coverage(lists: Lists, n_candidates: int) -> float:
    """Distinct items in all lists over the items that could have been shown.

    >>> coverage([[0, 1, 2], [1, 2, 5]], 8)
    0.5
    """
    rows, _ = _flat(lists)
    distinct = len(np.unique(rows))
    if distinct > n_candidates or n_candidates < 1:
        raise MetricError(f"n_candidates: {n_candidates} is too small; {distinct} distinct items are listed")
    return distinct / n_candidates


def novelty(lists: Lists, popularity: Counts) -> float:
    """Mean self-information of what is listed, in bits: -log2 of the item's share of all events.

    Averaged in each list, then over the lists that are not empty (Zhou et al., 2010). popularity int
    (n_items,) counts events per row; an item without events counts as if it had one.

    >>> novelty([[0, 1]], np.array([2, 1, 1]))
    1.5
    """
    total = popularity.sum()
    if total < 1:
        raise MetricError("popularity: no events at all; allowed: at least one")
    return _mean_of_lists(lists, -np.log2(np.maximum(popularity, 1) / total))


def arp(lists: Lists, popularity: Counts) -> float:
    """Average recommendation popularity: mean events per listed item, in each list, then over lists.

    Yin et al., 2012. Lower means more of the long tail.

    >>> arp([[0, 1], [1]], np.array([10, 2, 1]))
    4.0
    """
    return _mean_of_lists(lists, popularity.astype(np.float64))


def gini(counts: Counts) -> float:
    """Gini index of exposure over the catalogue, 0 (all alike) to 1 - 1/n (one item has all); zeros count.

    >>> gini(np.array([3, 3, 3])), gini(np.array([0, 0, 0, 8]))
    (0.0, 0.75)
    """
    n, total = len(counts), counts.sum()
    if total < 1:
        raise MetricError("counts: no exposure at all; allowed: at least one")
    place = np.arange(1, n + 1)
    return float(((2 * place - n - 1) * np.sort(counts)).sum() / (n * total))


def bootstrap_interval(
    values: Doubles,
    rng: np.random.Generator,
    draws: int = 1000,
    level: float = 0.95,
    clusters: npt.NDArray[Any] | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of values (q,) (Efron, 1979).

    Queries of one session depend on each other: with `clusters` (q,), one label per query, whole clusters are
    drawn with replacement, so the interval is honest about how many sessions there are.

    >>> bootstrap_interval(np.full(5, 0.25), np.random.default_rng(0), draws=10)
    (0.25, 0.25)
    """
    if not len(values):
        raise MetricError("values: empty; allowed: at least one query")
    if not 0 < level < 1:
        raise MetricError(f"level: {level} is not a confidence level; allowed: between 0 and 1, as 0.95")
    _, member = np.unique(np.arange(len(values)) if clusters is None else clusters, return_inverse=True)
    sums, sizes = np.bincount(member, weights=values), np.bincount(member).astype(np.float64)
    means = np.empty(draws)
    for draw in range(draws):
        picked = rng.integers(len(sums), size=len(sums))
        means[draw] = sums[picked].sum() / sizes[picked].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def fingerprint(report: Mapping[str, Any]) -> str:
    """SHA-256 of an evaluation report's content, whatever its layout: ties a verdict to what it judged."""
    return hashlib.sha256(orjson.dumps(report, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _checked(hits: Hits, relevant_counts: Counts, k: int) -> Hits:
    """The first k places of hits, after checking that they can be what relevant_counts says."""
    if hits.ndim != 2 or len(hits) != len(relevant_counts):
        raise MetricError(f"hits: shape {hits.shape} does not fit {len(relevant_counts)} queries")
    if k < 1 or hits.shape[1] < 1:
        raise MetricError(f"k: the first {k} of {hits.shape[1]} places are none; allowed: 1 or more")
    if len(hits) and (least := relevant_counts.min()) < 1:
        raise MetricError(
            f"relevant_counts: {least} is not allowed; leave out queries without a relevant item"
        )
    if (hits.sum(axis=1) > relevant_counts).any():
        raise MetricError("hits: more hits than relevant items in a query; a list repeats an item")
    return hits[:, :k]


def _flat(lists: Lists) -> tuple[Counts, Counts]:
    """All listed rows one after the other, and the list that each stands in; empty places are left out."""
    lengths = [len(one) for one in lists]
    rows = np.fromiter((row for one in lists for row in one), np.int64, sum(lengths))
    at = np.repeat(np.arange(len(lengths)), lengths)
    return rows[rows >= 0], at[rows >= 0]


def _mean_of_lists(lists: Lists, values: Doubles) -> float:
    rows, at = _flat(lists)
    if not len(rows):
        raise MetricError("lists: all are empty; allowed: at least one listed item")
    sizes = np.bincount(at)
    filled = sizes > 0
    return float((np.bincount(at, weights=values[rows])[filled] / sizes[filled]).mean())
