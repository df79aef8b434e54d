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

import numpy as np
import numpy.typing as npt

from feature_repo.assemble.matrix import ItemMatrix
from feature_repo.assemble.orders import best
from feature_repo.assemble.visitor import History, Visitor
from serving.stages.fitted import Addends, Models
from serving.stages.retrieve import foremost
from serving.stages.steering import FEW
from serving.surfaces.craft import Craft
from serving.types import Filter, Mask, Request, Rows

_TABLES = {"coviews": "covisit"}
MOST_ANCHORS = 20  # the newest of a cart: what a request costs must not grow with what it names


@dataclass(frozen=True)
class Anchored:
    """One question of a surface: its craft, and the catalogue rows (a,) that it starts from, at least one."""

    craft: Craft
    anchors: Rows
    models: Models
    matrix: ItemMatrix
    eligible: Filter

    @cached_property
    def allowed(self) -> tuple[Filter, ...]:
        """What may stand in the list while the first 0, 1, ... filters of `relax` give way."""
        found = [self.eligible]
        for one in self._filters:
            found.append(found[-1] if one is None else found[-1].both(one))
        return tuple(reversed(found))

    def standing(self, rows: Rows) -> list[Mask]:
        """Which of `rows` (n,) every filter of `allowed` lets stand: bool (n,) each."""
        found = [self.eligible.of(rows)]
        for one in self._filters:
            found.append(found[-1] if one is None else found[-1] & one.of(rows))
        return found[::-1]

    @cached_property
    def _filters(self) -> list[Filter | None]:
        """The last of `relax` first; one that counts what stands in the list is no filter of rows."""
        made = {"kind": self._of_kind, "price": self._in_range}
        return [made[name]() if name in made else None for name in reversed(self.craft.relax)]

    def bars(self, row: int) -> str | None:
        """The filter that has to give way before `row` may stand in the list; None where none has to."""
        level = next((at for at, may in enumerate(self.allowed) if may.of(np.array([row]))[0]), 0)
        return self.craft.relax[level - 1] if level else None

    def per_kind(self, level: int) -> int:
        """At most so many of one kind; 0: any number."""
        return self.craft.per_kind if "per_kind" in self.craft.relax[level:] else 0

    def wanting(self, rows: Rows, level: int) -> Filter:
        """Who could stand beside `rows`, which do: of no kind that has all the places it may have."""
        may, kinds = self.allowed[level], self.matrix.category
        if most := self.per_kind(level):
            full = np.bincount(kinds[rows], minlength=len(self.matrix.categories)) >= most
            full[0] = False
            may = may.both(Filter(lambda asked: ~full[kinds[asked]]))
        return may

    def _of_kind(self) -> Filter:
        own, kinds = self._codes("category"), self.matrix.category
        if self.craft.kind == "other" or not len(own):  # a shop that tells no categories has one kind
            return Filter(lambda rows: ~_one_of(own, kinds[rows]))
        within = self.matrix.grouped("category").of(own)
        return Filter(lambda rows: _one_of(own, kinds[rows]), within if len(within) <= FEW else None)

    def _in_range(self) -> Filter:
        price = self.matrix.price
        dearest = np.nanmax(price[self.anchors], initial=0.0)
        low, high = (bound * dearest for bound in self.craft.price)
        if not dearest:
            return Filter(lambda rows: np.ones(len(rows), np.bool_))
        return Filter(lambda rows: ~((price[rows] < low) | (price[rows] > high)))

    def _codes(self, name: str) -> Rows:
        """The anchors' own, ascending; not 0, the unknown one, which is nobody's."""
        found = set(getattr(self.matrix, name)[self.anchors].tolist()) - {0}
        return np.array(sorted(found), np.int64)

    def best(self, source: str, may: Filter, most: int) -> Rows:
        """At most `most` rows that may stand and that `source` brings, best first, none twice."""
        if source == "content":
            return self._nearest(may, most)
        if source == "bestsellers":
            return np.array(self._sold(may, most), np.int64)
        table = getattr(self.models, _TABLES.get(source, source))
        rows, value = Addends.of(table, self.anchors, np.ones(len(self.anchors))).summed()
        rows, value = rows[value > 0], value[value > 0]
        kept = may.of(rows)
        return rows[kept][best(value[kept], most)]

    def _nearest(self, may: Filter, most: int) -> Rows:
        models, newborns = self.models, self.matrix.newborns
        query = models.units(self.anchors, newborns).mean(axis=0)
        if may.within is None:
            found, near = models.index.search(query, most, may)
            late = np.arange(self.matrix.own, len(self.matrix))
        else:
            found, near, late = np.zeros(0, np.int64), np.zeros(0, np.float32), may.within
        late = late[may.of(late)]
        rows = np.concatenate([found, late])
        return rows[best(np.concatenate([near, models.units(late, newborns) @ query]), most)]

    def _sold(self, may: Filter, most: int) -> list[int]:
        """The most viewed of the anchors' departments, then of the others."""
        order, popular, codes = self.matrix.bestselling(), self.matrix.popularity(), self.matrix.department
        own = self._codes("department")
        inside = self.matrix.grouped("department").of(own)
        near = Filter(lambda rows: _one_of(own, codes[rows]), inside if len(inside) <= FEW else None)
        found = foremost(order, popular, may.both(near), most) if len(own) else []
        if len(found) < most:
            far = may.both(Filter(lambda rows: ~_one_of(own, codes[rows])))
            found += foremost(order, popular, far, most - len(found))
        return found


def _one_of(wanted: Rows, codes: npt.NDArray[np.int32]) -> Mask:
    """Which of `codes` (n,) are among the ascending `wanted`, bool (n,)."""
    if len(wanted) < 2:
        return codes == wanted[0] if len(wanted) else np.zeros(len(codes), np.bool_)
    found: Mask = wanted[np.minimum(wanted.searchsorted(codes), len(wanted) - 1)] == codes
    return found


def asked(
    craft: Craft | None,
    request: Request,
    visitor: Visitor,
    past: History,
    models: Models,
    matrix: ItemMatrix,
    eligible: Filter,
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
