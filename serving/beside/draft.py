"""Two lists in one: team-draft interleaving (Radlinski, Kurup and Joachims, CIKM 2008).

Two captains pick their teams from the same players: in each round a coin says who picks first, and each takes
the best of its own list that is still there. A click then speaks for the team of the slot. Whoever is
compared within one list is compared for the same shopper in the same mood, which needs far fewer of them.

Where a round begins and both would take the same next, it is shown and belongs to nobody: the coin would only
decide whose click that is, which is noise. Each round gives either team one slot, in an order by chance, so
that without a difference neither is ahead on average.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)
FIRST, SECOND, NOBODY = "A", "B", "-"


def draft(
    first: Sequence[Item],
    second: Sequence[Item],
    slots: int,
    coin: Callable[[], bool],
    fits: Callable[[Item], bool] = lambda item: True,
    take: Callable[[Item], object] = lambda item: None,
) -> list[tuple[Item, str]]:
    """At most `slots` items, none twice, each with its team: A of `first`, B of `second`, - of nobody.

    `fits` says whether an item may still be added, `take` is told of each that is. `coin`: whether A picks
    first. Where one list is at its end the other's items go on, nobody's.

    >>> draft(["u", "v", "w"], ["u", "x", "y"], 4, lambda: False)
    [('u', '-'), ('x', 'B'), ('v', 'A'), ('y', 'B')]
    """
    found: dict[Item, str] = {}

    def best(of: Sequence[Item]) -> Item | None:
        return next((item for item in of if item not in found and fits(item)), None)

    def pick(item: Item, team: str) -> None:
        found[item] = team
        take(item)

    while len(found) < slots:
        mine, theirs = best(first), best(second)
        if mine is None or theirs is None or mine == theirs:
            if (item := theirs if mine is None else mine) is None:
                break
            pick(item, NOBODY)
            continue
        order = [(first, FIRST), (second, SECOND)] if coin() else [(second, SECOND), (first, FIRST)]
        for of, team in order:
            if len(found) < slots and (item := best(of)) is not None:
                pick(item, team)
    return list(found.items())
