"""How alike two lists are: what they share, and rank-biased overlap."""

from collections.abc import Sequence

P = 0.9  # the first 10 places hold 86 % of the weight (Webber et al., eq. 21)


def overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Share of the longer list that both hold, in any order; two empty lists are alike.

    >>> overlap(["a", "b", "c", "d"], ["d", "a", "x", "y"])
    0.5
    """
    return len(set(one) & set(other)) / max(len(one), len(other)) if one or other else 1.0


def rbo(one: Sequence[str], other: Sequence[str], p: float = P) -> float:
    """Rank-biased overlap, extrapolated to lists without end: 1 equal, 0 nothing in common.

    RBO_ext of Webber, Moffat and Zobel (A similarity measure for indefinite rankings, TOIS 2010), equation
    32, which also holds for lists of two lengths. Items are distinct in each list.

    >>> round(rbo(["a", "b", "c"], ["a", "c", "b"]), 4), rbo(["a"], ["b"])
    (0.955, 0.0)
    """
    short, long = sorted((one, other), key=len)
    s, n = len(short), len(long)
    if not s:
        return float(n == 0)
    seen_short, seen_long, shared = set[str](), set[str](), 0
    total, at_short = 0.0, 0
    for depth in range(1, n + 1):
        new = {long[depth - 1]}
        seen_long |= new
        if depth <= s:
            new.add(short[depth - 1])
            seen_short.add(short[depth - 1])
        shared += sum(item in seen_short and item in seen_long for item in new)
        total += shared / depth * p**depth
        if depth == s:
            at_short = shared
        if depth > s:
            total += at_short * (depth - s) / (s * depth) * p**depth
    return (1 - p) / p * total + ((shared - at_short) / n + at_short / s) * p**n
