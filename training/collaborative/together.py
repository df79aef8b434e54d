"""What is wanted beside an item: bought or carted together, carted after a look, linked by the shop.

Counts of few baskets lie, and bestsellers stand beside everything. So a count is read as the chance that who
has one item wants the other, with a Dirichlet prior: the shop's own shares weigh like `prior` baskets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from training.dataset import Contacts

CART = 2  # the weakest kind of contact that says that somebody wants an item


@dataclass(frozen=True)
class TogetherParams:
    """`item_item.together:`, wanted in one visit."""

    prior: float  # baskets that the shares of the whole shop weigh like
    popularity: float  # exponent of the share that divides: 0 none, 1 lift
    most_items: int  # of a visit's wanted items, the first: a bulk order says little and costs its square


@dataclass(frozen=True)
class CartedParams(TogetherParams):
    """`item_item.carted:`, wanted after a look at another."""

    distance_decay: float  # per wanted item in between


def fit_together(contacts: Contacts, items: int, params: TogetherParams) -> sparse.csr_matrix:
    """CSR float32 (items, items), row = item in the basket, column = item scored.

    A basket is what one visit carted or bought. Each of its pairs counts 1 / sqrt(size - 1) in both
    directions: who fills a cart of twenty says less of each pair than who takes two.

    >>> c = Contacts(*(np.array(a) for a in ([0, 1], [2, 3], [5, 6], [0, 0], [0, 0], [[0, 0, 0]] * 2)))
    >>> fit_together(c, 2, TogetherParams(0.0, 0.0, 50)).toarray().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    wanted = _first_of_visit(contacts.select(contacts.kind >= CART), params.most_items)
    size = np.bincount(wanted.session, minlength=1)[wanted.session]
    shape = (int(wanted.session.max(initial=0)) + 1, items)
    basket = sparse.csr_matrix((np.ones(len(wanted)), (wanted.session, wanted.item)), shape=shape)
    weight = sparse.csr_matrix(
        (np.maximum(size - 1, 1) ** -0.5, (wanted.session, wanted.item)), shape=shape, dtype=np.float64
    )
    table = sparse.csr_matrix(basket.T @ weight)
    table.setdiag(0)
    return shrunk(table, params)


def fit_carted(contacts: Contacts, items: int, params: CartedParams) -> sparse.csr_matrix:
    """CSR float32 (items, items), row = item looked at, column = another carted or bought later in the visit.

    The d-th item wanted after the look counts `distance_decay` ** (d - 1).

    >>> c = Contacts(*(np.array(a) for a in ([0, 1], [1, 2], [5, 6], [0, 0], [0, 0], [[0, 0, 0]] * 2)))
    >>> fit_carted(c, 2, CartedParams(0.0, 0.0, 50, 0.5)).toarray().tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    ordered = contacts.by_session()
    order = np.arange(len(ordered))
    seen = _distinct(ordered.session, ordered.item, order)
    wants = np.flatnonzero(ordered.kind >= CART)
    wants = wants[_distinct(ordered.session[wants], ordered.item[wants], order[: len(wants)])]
    begin = np.searchsorted(wants, seen, side="right")  # the first wanted item after each look
    last = np.searchsorted(ordered.session[wants], ordered.session[seen], side="right")
    parts, weight = [], np.ones(len(seen))
    for d in range(params.most_items):
        at = begin + d
        inside = np.flatnonzero(at < last)
        if not len(inside):
            break
        row, column = ordered.item[seen[inside]], ordered.item[wants[at[inside]]]
        other = row != column
        values = weight[inside][other]
        parts.append(sparse.csr_matrix((values, (row[other], column[other])), shape=(items, items)))
        weight[inside[other]] *= params.distance_decay
    return shrunk(sparse.csr_matrix(sum(parts, sparse.csr_matrix((items, items)))), params)


def shrunk(table: sparse.csr_matrix, params: TogetherParams) -> sparse.csr_matrix:
    """Counts (items, items) as chances, shrunk to what the shop as a whole wants.

        value[i, j] = (count[i, j] + prior * share[j]) / (total[i] + prior) / share[j] ** popularity

    `share` is a column's part of all counts; pairs that were never seen stay 0.
    """
    coo = table.tocoo()
    kept = coo.data > 0
    row, column, count = coo.row[kept], coo.col[kept], coo.data[kept]
    total = np.bincount(row, count, table.shape[0])
    share = np.bincount(column, count, table.shape[1]) / max(total.sum(), 1e-12)
    value = (count + params.prior * share[column]) / (total[row] + params.prior)
    value = value / np.maximum(share[column], 1e-12) ** params.popularity
    return sparse.csr_matrix((value.astype(np.float32), (row, column)), shape=table.shape)


def links(item_ids: Sequence[str], accessories: Sequence[Sequence[str] | None]) -> sparse.csr_matrix:
    """The shop's own accessory links: CSR float32 (items, items), 1, 1/2, 1/3, ... in the shop's order.

    >>> links(["a", "b", "c"], [["c", "b"], None, []]).toarray().tolist()
    [[0.0, 0.5, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    place = {item: at for at, item in enumerate(item_ids)}
    found = [
        (row, place[other], 1 / rank)
        for row, others in enumerate(accessories)
        for rank, other in enumerate(dict.fromkeys(others or ()), 1)
        if other in place and place[other] != row
    ]
    rows, columns, values = zip(*found, strict=True) if found else ((), (), ())
    shape = (len(item_ids), len(item_ids))
    return sparse.csr_matrix((np.array(values, np.float32), (rows, columns)), shape=shape)


def _first_of_visit(contacts: Contacts, most: int) -> Contacts:
    """Every item of a visit once, at its first place; of each visit the first `most`."""
    ordered = contacts.by_session()
    once = ordered.select(_distinct(ordered.session, ordered.item, np.arange(len(ordered))))
    place = np.arange(len(once)) - np.searchsorted(once.session, once.session)
    return once.select(place < most)


def _distinct(session: np.ndarray, item: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Ascending places of the first contact of each visit with each item."""
    pair = session.astype(np.int64) * (int(item.max(initial=0)) + 1) + item
    _, first = np.unique(pair, return_index=True)
    return np.sort(order[first])
