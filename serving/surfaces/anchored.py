"""Sources that start from the products of a page or cart, not from the shopper. None scores the catalogue.

    links        accessories that the shop itself names
    together     carted or bought in one visit with an anchor
    carted       carted or bought after a look at an anchor
    coviews      contacted in one visit with an anchor
    content      nearest to the anchors in the space of the towers: works for an item on day one
    bestsellers  the most viewed of the anchors' departments, then of the others

A source brings nothing that the filters of the surface bar.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.visitor import History, Visitor
from serving.stages.fitted import Models
from serving.surfaces.craft import Craft
from serving.types import Request, Rows

Mask = npt.NDArray[np.bool_]
_TABLES = {"coviews": "covisit"}
MOST_ANCHORS = 20  # the newest of a cart: what a request costs must not grow with what it names


@dataclass(frozen=True)
class Anchored:
    """One question of a surface: its craft, and the catalogue rows (a,) that it starts from, at least one."""

    craft: Craft
    anchors: Rows
    models: Models
    matrix: ItemMatrix
    eligible: Mask

    @cached_property
    def allowed(self) -> tuple[Mask, ...]:
        """Who may stand in the list while the first 0, 1, ... filters of `relax` give way: bool (N,) each."""
        masks = [self.eligible]
        for name in reversed(self.craft.relax):
            passed = {"kind": self._of_kind, "price": self._in_range}.get(name)
            masks.append(masks[-1] if passed is None else masks[-1] & passed())
        return tuple(reversed(masks))

    def bars(self, row: int) -> str | None:
        """The filter that has to give way before `row` may stand in the list; None where none has to."""
        level = next((at for at, mask in enumerate(self.allowed) if mask[row]), 0)
        return self.craft.relax[level - 1] if level else None

    def per_kind(self, level: int) -> int:
        """At most so many of one kind; 0: any number."""
        return self.craft.per_kind if "per_kind" in self.craft.relax[level:] else 0

    def wanting(self, rows: Rows, level: int) -> Mask:
        """Who could stand beside `rows`, which do: of no kind that has all the places it may have."""
        mask, kinds = self.allowed[level], self.matrix.category
        if most := self.per_kind(level):
            full = np.bincount(kinds[rows], minlength=int(kinds.max(initial=0)) + 1) >= most
            full[0] = False
            mask = mask & ~full[kinds]
        return mask

    def _of_kind(self) -> Mask:
        same = _one_of(self.matrix.category, self.anchors)
        if self.craft.kind == "other":
            return ~same
        return same if same.any() else ~same  # a shop that tells no categories has one kind

    def _in_range(self) -> Mask:
        price = self.matrix.price
        dearest = np.nanmax(price[self.anchors], initial=0.0)
        low, high = (bound * dearest for bound in self.craft.price)
        return ~((price < low) | (price > high)) if dearest else np.ones(len(price), np.bool_)

    def best(self, source: str, mask: Mask, most: int) -> Rows:
        """At most `most` rows of `mask` that `source` brings, best first, none twice."""
        if source == "content":
            rows = np.flatnonzero(mask)
            value = self._vectors(rows) @ self._vectors(self.anchors).mean(axis=0)
        elif source == "bestsellers":
            rows = np.flatnonzero(mask)
            near = _one_of(self.matrix.department, self.anchors)[rows]
            value = self.matrix.popularity()[rows] + 2.0 * near  # a popularity is at most 1
        else:
            rows, value = self._summed(getattr(self.models, _TABLES.get(source, source)))
            kept = mask[rows] & (value > 0)
            rows, value = rows[kept], value[kept]
        if most < len(rows):
            best = np.sort(np.argpartition(-value, most - 1)[:most])
            rows, value = rows[best], value[best]
        return rows[np.argsort(-value, kind="stable")]

    def _vectors(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Of the models' own rows and of those that came after the fit, L2-normalised: float32 (n, d)."""
        own, units = self.models.item_vectors, self.matrix.newborns.units
        old = rows < len(own)
        if old.all():
            return own[rows]
        found = np.empty((len(rows), own.shape[1]), np.float32)
        found[old], found[~old] = own[rows[old]], units[rows[~old] - len(own)]
        return found

    def _summed(self, table: sparse.csr_matrix) -> tuple[Rows, npt.NDArray[Any]]:
        """Ascending rows that stand beside any anchor in `table`, and the sums of their values."""
        known = self.anchors[self.anchors < table.shape[0]]
        spans = [slice(table.indptr[row], table.indptr[row + 1]) for row in known.tolist()]
        if not spans:
            return np.empty(0, np.int64), np.empty(0)
        items, place = np.unique(np.concatenate([table.indices[span] for span in spans]), return_inverse=True)
        return items.astype(np.int64), np.bincount(
            place, np.concatenate([table.data[span] for span in spans])
        )


def _one_of(codes: npt.NDArray[np.int32], anchors: Rows) -> Mask:
    """Which items have the code of an anchor, (N,); an unknown code, 0, is nobody's."""
    wanted = np.zeros(int(codes.max(initial=0)) + 1, np.bool_)
    wanted[codes[anchors]] = True
    wanted[0] = False
    found: Mask = wanted[codes]
    return found


def asked(
    craft: Craft | None,
    request: Request,
    visitor: Visitor,
    past: History,
    models: Models,
    matrix: ItemMatrix,
    eligible: Mask,
) -> Anchored | None:
    """The question of a surface that has a craft and something to start from, else None.

    Anchors are what the request names; a cart is, too, what the visit has put into it. Where neither names a
    product of the catalogue it is the newest contact of the visit.
    """
    if craft is None:
        return None
    named = request.items or request.cart
    if craft.anchors == "cart":
        named = (*visitor.session["cart_items"], *request.cart, *request.items)
    rows = matrix.rows_of(list(dict.fromkeys(named)))[-MOST_ANCHORS:]
    if not len(rows):
        rows = past.rows[past.current][-1:]
    return Anchored(craft, rows, models, matrix, eligible) if len(rows) else None
