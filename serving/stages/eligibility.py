"""Who may be shown. A filter returns what it keeps and, per item removed, the reason."""

from dataclasses import dataclass

import numpy as np

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor
from feature_repo.clock import DAY_US, instant
from serving.stages.steering import UNSTEERED, Steering
from serving.types import Filter, Mask, Request, Rows

EVER = 365.0  # days: as long as a shopper's purchases are kept


@dataclass(frozen=True, slots=True)
class Eligibility:
    """`may`: which rows may be shown, of `items` in all; `removed` item -> reason for this shopper's own."""

    may: Filter
    removed: dict[str, str]
    items: int

    @property
    def mask(self) -> Mask:
        """Of the whole catalogue, bool (N,): for reports, not for requests."""
        return self.may.of(np.arange(self.items))


def on_sale(matrix: ItemMatrix, now: int, rows: Rows) -> Mask:
    """Of rows (n,) bool (n,), false for what is sold out, deleted or not yet sold; for every list.

    An unknown stock counts as in stock: a shop that does not tell is not an empty shop.
    """
    return np.asarray(matrix.on_sale_from[rows] <= now)


def not_on_sale(matrix: ItemMatrix, row: int, now: int) -> str | None:
    """Why `on_sale` bars a row, in words; None where it does not.

    "sold out", "sold from 2026-01-01T00:00:00+00:00 on"
    """
    if matrix.stock[row] <= 0:
        return "sold out"
    day = int(matrix.available_from[row])
    return f"sold from {instant(day).isoformat()} on" if day > now else None


def eligibility(
    request: Request,
    visitor: Visitor,
    matrix: ItemMatrix,
    bought_days: float = EVER,
    steering: Steering = UNSTEERED,
) -> Eligibility:
    """Nothing that is not on sale, in the cart, just bought, named by the page, or excluded.

    And only what the shop's rules allow. Just bought is what was bought in this visit, or within
    `bought_days` in an earlier one.
    """
    removed: dict[str, str] = {}
    for reason, items in (
        ("excluded by the request", request.exclude),
        ("is the item of this page", request.items),
        ("in the cart", (*request.cart, *visitor.session["cart_items"])),
        ("just bought", (*visitor.session["bought_items"], *bought_within(visitor, bought_days))),
    ):
        for item in items:
            if item in matrix.row:
                removed.setdefault(item, reason)
    barred = np.sort(matrix.rows_of(list(removed)))

    def of(rows: Rows) -> Mask:
        mask = on_sale(matrix, visitor.now, rows)
        if steering.allowed is not None:
            mask &= steering.allowed[rows]
        if len(barred):
            place = np.minimum(barred.searchsorted(rows), len(barred) - 1)
            mask &= barred[place] != rows
        return mask

    return Eligibility(Filter(of, steering.few), removed, len(matrix))


def bought_within(visitor: Visitor, days: float) -> list[str]:
    """What the shopper bought within `days`, as the stored row tells; of `days` = 0 nothing."""
    since = visitor.now - days * DAY_US
    bought = zip(visitor.user["bought_items"], visitor.user["bought_ts"], strict=True)
    return [item for item, ts in bought if ts > since]
