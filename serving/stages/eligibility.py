"""Who may be shown. A filter returns what it keeps and, per item removed, the reason."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import Visitor
from feature_repo.clock import DAY_US, instant
from serving.types import Request

EVER = 365.0  # days: as long as a shopper's purchases are kept


@dataclass(frozen=True, slots=True)
class Eligibility:
    """`mask` bool (N,), true where an item may be shown; `removed` item -> reason for this shopper's own."""

    mask: npt.NDArray[np.bool_]
    removed: dict[str, str]


def on_sale(matrix: ItemMatrix, now: int) -> npt.NDArray[np.bool_]:
    """bool (N,), false for what is sold out, deleted or not yet sold; for every list, whatever made it.

    An unknown stock counts as in stock: a shop that does not tell is not an empty shop.
    """
    return (matrix.available_from <= now) & ~(matrix.stock <= 0)


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
    allowed: npt.NDArray[np.bool_] | None = None,
) -> Eligibility:
    """Nothing that is not on sale, in the cart, just bought, named by the page, or excluded.

    And only what the shop's rules have `allowed`, bool (N,).

    Just bought is what was bought in this visit, or within `bought_days` in an earlier one.
    """
    mask = on_sale(matrix, visitor.now)
    if allowed is not None:
        mask &= allowed
    removed: dict[str, str] = {}
    for reason, items in (
        ("excluded by the request", request.exclude),
        ("is the item of this page", request.items),
        ("in the cart", (*request.cart, *visitor.session["cart_items"])),
        ("just bought", (*visitor.session["bought_items"], *bought_within(visitor, bought_days))),
    ):
        for item in items:
            if (row := matrix.row.get(item)) is not None:
                mask[row] = False
                removed.setdefault(item, reason)
    return Eligibility(mask, removed)


def bought_within(visitor: Visitor, days: float) -> list[str]:
    """What the shopper bought within `days`, as the stored row tells; of `days` = 0 nothing."""
    since = visitor.now - days * DAY_US
    bought = zip(visitor.user["bought_items"], visitor.user["bought_ts"], strict=True)
    return [item for item, ts in bought if ts > since]
