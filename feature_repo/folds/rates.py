"""Rates of decayed counts, smoothed so that a new item is neither a star nor a flop after one exposure."""

from feature_repo.folds.fold import Part, Reading

PRIOR_CLICKS, PRIOR_EXPOSURE = 1.0, 50.0  # a new item starts at 2 % and moves after some 50 exposures


class ClickRate(Part):
    """Clicks per examined impression, with a Beta prior: (clicks + 1) / (exposure + 50). Stores nothing.

    Exposure is weighted by the chance that the position is examined, so that an item listed low is not taken
    for one that nobody likes.
    """

    types = frozenset()

    def __init__(self, clicks: str, exposure: str, column: str) -> None:
        doc = "clicks per impression that was likely looked at, smoothed"

        def read(matrix: object, now: int, rows: object) -> object:
            count = matrix.count  # type: ignore[attr-defined]
            return (count(clicks, now, rows) + PRIOR_CLICKS) / (count(exposure, now, rows) + PRIOR_EXPOSURE)

        self.readings = (Reading(column, "share", doc, (clicks, exposure, "at"), read),)
