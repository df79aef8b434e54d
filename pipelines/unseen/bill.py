"""What exploring costs in clicks: the last slot where it explored, against where the draw left it alone.

Which of the two a list got was drawn by a hash that knows nothing of the shopper, so that the difference of
the two click rates is what the draw did. Shoppers are the units: their lists are alike.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from monitoring.experiment.tail import Exposure

Z = 1.96  # 95 %
LEAST = 20  # shoppers on each side, below which no interval is told


def bill(exposures: Iterable[Exposure]) -> dict[str, Any]:
    """`explored`, `not_explored`: lists, shoppers and clicks on the last slot; `ctr_change` of that slot with
    its interval, `clicks`: gained (less than 0: lost) by all that was explored, with its interval.
    """
    sums: dict[bool, dict[str, list[int]]] = {
        True: defaultdict(lambda: [0, 0]),
        False: defaultdict(lambda: [0, 0]),
    }
    by_arm: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in exposures:
        if one.explored is None:
            continue
        of = sums[one.explored][one.unit or one.request_id]
        of[0] += 1
        of[1] += one.items[-1] in one.outcomes
        by_arm[one.arm][0 if one.explored else 1] += 1
    sides = {side: np.array(list(units.values()), np.float64).reshape(-1, 2) for side, units in sums.items()}
    told: dict[str, Any] = {
        name: {"lists": int(side[:, 0].sum()), "shoppers": len(side), "clicks": int(side[:, 1].sum())}
        for name, side in (("explored", sides[True]), ("not_explored", sides[False]))
    }
    told["by_arm"] = {arm: {"explored": a, "not_explored": b} for arm, (a, b) in sorted(by_arm.items())}
    if min(map(len, sides.values())) < LEAST:
        return told | {"ctr_change": None, "clicks": None}
    (rate, error), (other, other_error) = (_ratio(sides[side]) for side in (True, False))
    change, spread = rate - other, Z * float(np.hypot(error, other_error))
    lists = told["explored"]["lists"]
    ends = [change, change - spread, change + spread]
    return told | {"ctr_change": ends, "clicks": [lists * end for end in ends]}


def _ratio(side: np.ndarray) -> tuple[float, float]:
    """Clicks per list and its standard error; `side` (units, 2): lists and clicks of each. Delta method."""
    lists, clicks = side.mean(0)
    rate = clicks / lists
    residual = side[:, 1] - rate * side[:, 0]
    return float(rate), float(residual.std(ddof=1) / lists / np.sqrt(len(side)))
